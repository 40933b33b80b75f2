from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from dropsearch.core.processes import cores
from dropsearch.experiment.user_module import TrialModules
from dropsearch.experiment.winners import measuring_threads


def context(module: nn.Module, batch: Any) -> Any:
    modules = SimpleNamespace(batch=batch, specimen=lambda _: module, start={})
    modules.operations = TrialModules.operations.func(modules)  # type: ignore[arg-type]
    return SimpleNamespace(modules=modules)


@pytest.mark.parametrize(
    ("module", "batch", "is_costly"),
    [
        (nn.Linear(64, 10), (torch.zeros(2, 64), torch.zeros(2)), False),
        (nn.Linear(2048, 2048), (torch.zeros(2, 2048), torch.zeros(2)), True),
        (nn.Linear(64, 10), {"not": "inputs and classes"}, True),
    ],
)
def test_small_models_are_measured_with_one_thread(module: nn.Module, batch: Any, is_costly: bool) -> None:
    torch.set_num_threads(1)
    with measuring_threads(context(module, batch)):
        assert torch.get_num_threads() == (cores() if is_costly else 1)
    assert torch.get_num_threads() == 1
