"""A site is called dead only where it stays so after some training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import dropsearch
from tests.parity.test_seeds import SEARCH
from tests.user_modules import data, nets


class LowRank(nn.Module):
    """A frozen layer with an update of low rank, whose second factor starts at zero."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.base = nn.Linear(width, out).requires_grad_(False)
        self.a, self.drop, self.b = nn.Linear(width, 4, bias=False), nn.Dropout(0.1), nn.Linear(4, out, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.b(self.a(self.drop(x)))


class Adapted(nets.LitNet):
    """Has dropout in its low-rank updates only."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.drop = LowRank(64, 16), LowRank(16, 10), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))


def test_a_module_whose_sites_come_alive_in_training_is_searched(tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float32)
    more: dict[str, Any] = {**SEARCH, "output_dir": tmp_path}
    found = dropsearch.search(Adapted, data.Digits(), **more)
    assert [site.name for site in found.summary.sites] == ["first.drop", "last.drop"]
    assert not any("rates 0 and 0.9" in note or "frozen" in note for note in found.summary.notes)
