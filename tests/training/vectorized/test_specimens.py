"""Kinds of modules in public code, over epochs that end with a smaller batch: trials keep law 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from dropsearch.core.global_state import seeded
from dropsearch.core.records import TrialSpec
from dropsearch.datasets.user_data import UserData
from tests.training.vectorized.laws import Case, assert_law_2
from tests.user_modules.data import Augmented, Digits
from tests.user_modules.metrics import Asking
from tests.user_modules.specimens import EACH, ClassWeights


@pytest.mark.parametrize("make", [*EACH, Asking])
def test_law_2(make: type, tmp_path: Path) -> None:
    assert_law_2(Case(make, Augmented()), tmp_path)


class InSingle(Case):
    """Trials in float32, which the comparison before a search doubles itself."""

    def __init__(self, make: type) -> None:
        super().__init__(make, Digits())
        self.source = UserData(Digits(), "data")

    def make_module(self, spec: TrialSpec) -> ClassWeights:
        """Return a trial's module as it is."""
        with seeded(spec.seed):
            return ClassWeights(lr=spec.lr)


def test_plain_tensors_are_compared_in_double_precision() -> None:
    assert InSingle(ClassWeights).reason() == ""
