"""The recurrent network."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from dropsearch.models import RNN


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_padding_equals_packing(cell, small_net, batch):
    net = small_net("rnn", "sequence", cell=cell).double()
    x, lengths = batch("sequence")
    judge = (nn.LSTM if cell == "lstm" else nn.GRU)(3, 8, num_layers=2, batch_first=True).double()
    for number in (1, 2):
        for name, weight in net.get_submodule(f"layer{number}.rnn").named_parameters():
            judge.get_parameter(name.replace("l0", f"l{number - 1}")).data.copy_(weight)

    packed = pack_padded_sequence(x.double(), lengths, batch_first=True, enforce_sorted=False)
    state = judge(packed)[1]
    last = (state[0] if cell == "lstm" else state)[-1]

    torch.testing.assert_close(net(x.double(), lengths), net.get_submodule("output.linear")(last))


def _kept(net: RNN, steps: int) -> torch.Tensor:
    return net.get_submodule("input")(torch.ones(50, steps, 4), None).ne(0)


def test_sequence_mask_is_constant_over_steps():
    kept = _kept(RNN((9, 4), 2, layout="sequence", dropout=0.5, mask="sequence"), 9)

    assert torch.equal(kept.any(1), kept.all(1))
    assert 0.3 < kept.float().mean() < 0.7


def test_step_mask_differs_between_steps():
    kept = _kept(RNN((9, 4), 2, layout="sequence", dropout=0.5, mask="step"), 9)

    assert not torch.equal(kept.any(1), kept.all(1))
    assert 0.4 < kept.float().mean() < 0.6


def test_image_is_read_row_by_row():
    net = RNN((2, 5, 3), 4).double()
    as_sequence = RNN((5, 6), 4, layout="sequence").double()
    as_sequence.load_state_dict(net.state_dict())
    x = torch.randn(7, 2, 5, 3, dtype=torch.float64)
    rows = torch.stack([x[:, :, row].reshape(7, 6) for row in range(5)], dim=1)

    torch.testing.assert_close(net(x), as_sequence(rows))


def test_signal_is_read_sample_by_sample():
    net = RNN((2, 5), 4).double()
    as_sequence = RNN((5, 2), 4, layout="sequence").double()
    as_sequence.load_state_dict(net.state_dict())
    x = torch.randn(7, 2, 5, dtype=torch.float64)

    torch.testing.assert_close(net(x), as_sequence(x.mT))
