"""Dropout between the layers of a recurrent network is a site like any other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from dropsearch.dropout.mask_bits import SiteBits
from dropsearch.dropout.sites import dropout_sites
from tests.dropout.rows import alone, stacked

KINDS: list[dict[str, Any]] = [
    {"kind": nn.LSTM},
    {"kind": nn.LSTM, "bidirectional": True, "batch_first": True},
    {"kind": nn.LSTM, "proj_size": 2},
    {"kind": nn.GRU, "bidirectional": True},
    {"kind": nn.GRU, "bias": False},
    {"kind": nn.RNN, "batch_first": True},
    {"kind": nn.RNN, "nonlinearity": "relu"},
]
X = (3, 5, 4)


def make(kind: type[nn.RNNBase], dropout: float = 0.4, layers: int = 3, **options: Any) -> nn.RNNBase:
    return kind(4, 6, num_layers=layers, dropout=dropout, **options).double()


def by_hand(model: nn.RNNBase, x: Tensor, masks: list[Tensor]) -> Tensor:
    """The formula of the documentation: each layer alone, its outputs multiplied by a mask."""
    options = {"bidirectional": model.bidirectional, "batch_first": model.batch_first, "bias": model.bias}
    if isinstance(model, nn.LSTM):
        options["proj_size"] = model.proj_size
    if type(model) is nn.RNN:
        options["nonlinearity"] = model.nonlinearity
    for layer in range(model.num_layers):
        single = type(model)(x.shape[-1], model.hidden_size, **options).double()
        given = {name: value for name, value in model.named_parameters() if f"_l{layer}" in name}
        single.load_state_dict({name.replace(f"_l{layer}", "_l0"): value for name, value in given.items()})
        x = single(x)[0]
        if layer < model.num_layers - 1:
            x = x * masks[layer]
    return x


def masks_of(model: nn.RNNBase, x: Tensor, rate: float, seed: int, step: int) -> list[Tensor]:
    shape = (model.num_layers - 1, *model(x)[0].shape)
    bits = torch.from_numpy(SiteBits().draw(seed, "model", step, torch.Size(shape).numel())).view(shape)
    return list((bits >= round(rate * 65536) - 32768).double() / (1 - rate))


@pytest.mark.parametrize("options", KINDS)
def test_a_layer_is_dropped_as_by_hand(options: dict[str, Any]) -> None:
    model, x = make(**options), torch.randn(X, dtype=torch.float64)
    (site,) = dropout_sites(model, lambda: model(x))
    assert (site.name, site.kind, site.rate, site.controllable) == ("model", "rnn", 0.4, True)
    expected = by_hand(model, x, masks_of(model, x, 0.3, 7, 2))
    assert torch.allclose(
        alone(model, {"model": 0.3}, lambda: model(x), seed=7, step=2)[0], expected, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("options", [each for each in KINDS if "proj_size" not in each])  # which has no cell
def test_rows_equal_sequential_trials(options: dict[str, Any]) -> None:
    model, x = make(**options), torch.randn(X, dtype=torch.float64)
    rates = [{"model": rate} for rate in (0.0, 0.3, 0.8)]
    rows = stacked(model, rates, [1, 2, 2], [0, 4, 5], lambda: model(x))
    for row, (rate, seed, step) in enumerate(zip(rates, [1, 2, 2], [0, 4, 5], strict=True)):
        single = alone(model, rate, lambda: model(x), seed=seed, step=step)
        for ours, theirs in zip((single[0], single[1]), (rows[0], rows[1]), strict=True):
            for a, b in zip(_flat(ours), _flat(theirs), strict=True):
                assert torch.allclose(a, b[row], rtol=0, atol=1e-12)


def _flat(value: Any) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def test_packed_sequences_drop_too() -> None:
    model = make(nn.LSTM, batch_first=True)
    packed = pack_padded_sequence(torch.randn(X, dtype=torch.float64), [5, 3, 2], batch_first=True)
    run = lambda: model(packed)[0].data  # noqa: E731
    off = alone(model, {"model": 0.0}, run)
    assert torch.allclose(off, alone(model, {}, run, off=True))
    assert not torch.allclose(off, alone(model, {"model": 0.5}, run))
    assert torch.equal(alone(model, {"model": 0.5}, run), alone(model, {"model": 0.5}, run))


def test_rate_zero_is_the_network_without_dropout() -> None:
    model, x = make(nn.GRU), torch.randn(X, dtype=torch.float64)
    assert torch.equal(alone(model, {"model": 0.0}, lambda: model(x))[0], model.eval()(x)[0])


def test_one_layer_has_no_site_to_set() -> None:
    with pytest.warns(UserWarning, match="num_layers greater than 1"):
        model = make(nn.LSTM, layers=1)
    (site,) = dropout_sites(model, lambda: model(torch.randn(X, dtype=torch.float64)))
    assert not site.controllable
    assert "there is only one" in site.reason
