"""Measures which share of activations each of three trials drops, when they train together."""

from __future__ import annotations

import torch
from modelbatch import ModelBatch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from dropsearch.dropout.row_control import RowBits, RowDropoutControl, row_rates

RATES = (0.1, 0.5, 0.9)
UNITS = 100_000


class OneSite(nn.Module):
    """Drops its input; the weight is there because the others want something to train."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.drop = nn.Dropout(rate)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x * self.weight)


def shares(out: Tensor) -> list[float]:
    """Return which share of each row is zero."""
    return [float((row == 0).float().mean()) for row in out]


def by_modelbatch() -> list[float]:
    """Return what ModelBatch drops."""
    batch = ModelBatch([OneSite(rate) for rate in RATES], shared_input=True)
    return shares(batch(torch.ones(1, UNITS)))


def by_dropsearch() -> list[float]:
    """Return the shares that vectorized trials of dropsearch drop."""
    models = [OneSite(0.5) for _ in RATES]
    parameters, _ = stack_module_state(models)
    rates = row_rates([{"drop": rate} for rate in RATES], torch.float32, torch.device("cpu"))
    bits = RowBits({"drop": torch.Size((1, UNITS))}, len(RATES), torch.device("cpu")).draw([1, 2, 3], [0, 0, 0])
    control = RowDropoutControl(models[0])

    def one(parameters: dict[str, Tensor], rates: dict, bits: dict[str, Tensor]) -> Tensor:
        control.load(rates, bits)
        with control.step():
            return functional_call(models[0], parameters, torch.ones(1, UNITS))

    with control.watching():
        return shares(vmap(one)(parameters, rates, bits))


if __name__ == "__main__":
    torch.manual_seed(0)
    print(f"requested:   {', '.join(f'{rate:.3f}' for rate in RATES)}")
    print(f"ModelBatch:  {', '.join(f'{share:.3f}' for share in by_modelbatch())}")
    print(f"dropsearch:  {', '.join(f'{share:.3f}' for share in by_dropsearch())}")
