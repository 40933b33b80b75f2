"""Access to the parts of modules."""

from __future__ import annotations

from torch import nn

from dropsearch._compat.torch_modules import named_parts


def test_parts_are_those_of_named_modules_in_the_same_order() -> None:
    shared = nn.Linear(2, 2)
    model = nn.Sequential(nn.Sequential(shared, nn.ReLU()), shared, nn.ModuleDict({"a": nn.Sequential(shared)}))
    model.absent = None  # type: ignore[assignment]
    model.register_module("none", None)
    assert list(named_parts(model)) == list(model.named_modules())
