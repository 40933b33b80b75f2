"""Kinds of modules in public code, over epochs that end with a smaller batch: trials keep law 2."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from dropsearch.core.global_state import seeded
from dropsearch.core.records import TrialSpec
from dropsearch.datasets.user_data import UserData
from dropsearch.training.vectorized.vmap_modes import VmapRNN
from tests.training.vectorized.laws import Case, assert_law_2
from tests.user_modules.data import Augmented, Digits
from tests.user_modules.metrics import Asking, Popping
from tests.user_modules.specimens import EACH, ClassWeights, Together


@pytest.mark.parametrize("make", [*EACH, Asking, Popping])
def test_law_2(make: type, tmp_path: Path) -> None:
    assert_law_2(Case(make, Augmented()), tmp_path)


class InSingle(Case):
    """Trials in float32, which the comparison before a search doubles itself."""

    make: type[ClassWeights]

    def __init__(self, make: type[ClassWeights]) -> None:
        super().__init__(make, Digits())
        self.source = UserData(Digits(), "data")

    def make_module(self, spec: TrialSpec) -> ClassWeights:
        """Return a trial's module as it is."""
        with seeded(spec.seed):
            return self.make(lr=spec.lr)


def test_plain_tensors_are_compared_in_double_precision() -> None:
    assert InSingle(ClassWeights).reason() == ""


def test_what_modules_share_is_shared_in_the_comparison_too() -> None:
    assert InSingle(Together).reason().startswith("a step or a hook changes self.table, which all trials share (")


@pytest.mark.parametrize(
    ("make", "options"), [(nn.LSTMCell, {}), (nn.GRUCell, {}), (nn.RNNCell, {}), (nn.RNNCell, {"nonlinearity": "relu"})]
)
@pytest.mark.parametrize("bias", [True, False])
def test_cells_of_rows(make: type, options: dict[str, str], bias: bool) -> None:
    cells = [make(3, 4, bias=bias, **options).double() for _ in range(2)]
    state, _ = stack_module_state(cells)
    x, shown = torch.randn(2, 5, 3, dtype=torch.float64), lambda found: found if isinstance(found, tuple) else (found,)
    with VmapRNN():
        found = vmap(lambda state, x: functional_call(cells[0], state, (x,)))(state, x)
    expected = zip(*(shown(cell(each)) for cell, each in zip(cells, x, strict=True)), strict=True)
    torch.testing.assert_close(shown(found), tuple(map(torch.stack, expected)), rtol=1e-12, atol=1e-12)
