"""Sites that exist only at a rate above 0 are named with the argument to set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from dropsearch.dropout.tools.inventory import dropout_sites
from dropsearch.training.adapters.absent_sites import absent_sites, describe, describe_rates, rates_set_by

X = torch.randn(4, 3)


@dataclass
class NetConfig:
    width: int = 3
    dropout: float = 0.0


class Guarded(nn.Module):
    """Has its dropouts only at rates above 0, given in three ways."""

    def __init__(
        self, dropout: float = 0.0, drop_path: float = 0, net: Any = None, config: Any = None, p: float = 0.0
    ) -> None:
        super().__init__()
        rates = {
            "body": dropout,
            "branch": drop_path,
            "inner": (net or {}).get("dropout", 0.0),
            "deep": config.dropout if config else 0.0,
        }
        self.parts = nn.ModuleDict({name: nn.Dropout(rate) for name, rate in rates.items() if rate > 0})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.parts.values():
            x = part(x)
        return x


def absent(arguments: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    module = Guarded(**arguments)
    return absent_sites(lambda more: Guarded(**{**arguments, **more}), arguments, dropout_sites(module, X), X)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"dropout": 0.0}, {"dropout": ("parts.body",)}),
        ({"dropout": 0.0, "drop_path": 0}, {"dropout": ("parts.body",), "drop_path": ("parts.branch",)}),
        ({"dropout": 0.5, "drop_path": 0}, {"drop_path": ("parts.branch",)}),
        ({"net": {"dropout": 0.0, "width": 3}}, {"net.dropout": ("parts.inner",)}),
        ({"config": NetConfig()}, {"config.dropout": ("parts.deep",)}),
        ({"dropout": 0.5}, {}),
        ({"p": 0.0}, {}),
        ({}, {}),
    ],
)
def test_each_argument_is_named_with_its_sites(arguments: dict[str, Any], found: dict[str, tuple[str, ...]]) -> None:
    assert absent(arguments) == found


def test_it_is_one_sentence() -> None:
    assert describe(absent({"dropout": 0.0})) == (
        "sites that exist only at a rate above 0 are not searched: model.dropout=0.1 makes parts.body"
    )
    assert describe({}) == ""


def test_a_module_that_cannot_be_built_so_has_nothing_to_say() -> None:
    def refuse(_: Any) -> Any:
        raise ValueError("dropout must be 0")

    assert absent_sites(refuse, {"dropout": 0.0}, (), X) == {}


class Given(nn.Module):
    """Takes a width, and a rate for a module and for a function."""

    def __init__(self, width: int = 4, p: float = 0.3) -> None:
        super().__init__()
        self.first, self.drop, self.last, self.p = nn.Linear(4, width), nn.Dropout(p), nn.Linear(width, 2), p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(nn.functional.dropout(self.drop(self.first(x)), self.p, self.training))


def test_arguments_that_set_searched_rates_are_named() -> None:
    def build(changed: dict[str, Any]) -> Given:
        if changed.get("width") == 0:
            raise ValueError("no width")
        return Given(**changed)

    found = rates_set_by(build, {"p": (0.1, 0.5), "width": (2, 8)}, torch.ones(2, 4))
    assert {name: len(sites) for name, sites in found.items()} == {"p": 2}
    assert describe_rates(found).startswith("the values of model.p have no effect on drop, ")
    assert rates_set_by(build, {"p": (0.3, 0.3), "width": (0, 8)}, torch.ones(2, 4)) == {}
