"""Padding does not change the outputs of networks."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

CASES = list(itertools.product(("rnn", "transformer"), ("none", "batch", "layer"), (True, False)))


@pytest.mark.parametrize(("name", "norm", "training"), CASES)
def test_padding_length_does_not_change_logits(name, norm, training, small_net, batch):
    x, lengths = batch("sequence")
    lengths = lengths.clamp(max=6)
    net = small_net(name, "sequence", norm=norm).double().train(training)

    torch.testing.assert_close(net(x.double(), lengths), net(x[:, :6].double(), lengths))


@pytest.mark.parametrize(("name", "norm", "training"), CASES)
def test_padding_values_are_ignored(name, norm, training, small_net, batch):
    x, lengths = batch("sequence")
    padding = torch.arange(x.shape[1]) >= lengths[:, None]
    net = small_net(name, "sequence", norm=norm).double().train(training)

    noisy = x.masked_fill(padding.unsqueeze(-1), 7.0)
    torch.testing.assert_close(net(noisy.double(), lengths), net(x.double(), lengths))


@pytest.mark.parametrize("name", ["rnn", "transformer"])
def test_full_lengths_equal_no_lengths(name, small_net, batch):
    x, _ = batch("sequence")
    net = small_net(name, "sequence").double()

    torch.testing.assert_close(net(x.double(), torch.full((6,), 10)), net(x.double()))


@pytest.mark.parametrize("name", ["mlp", "cnn", "rnn", "transformer"])
def test_empty_sequence_is_finite(name, small_net):
    net = small_net(name, "sequence", norm="batch", dropout=0.2)
    logits = net(torch.zeros(3, 10, 3), torch.tensor([0, 0, 4]))
    F.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()

    assert logits.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())
