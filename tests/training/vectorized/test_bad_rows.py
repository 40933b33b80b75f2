"""A row whose values make the module raise ends alone, as its trial does by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropsearch.core.records import TrialResult, TrialSpec
from tests.training.conftest import Queue
from tests.training.vectorized.laws import Case, assert_alike, trials
from tests.user_modules.data import Digits
from tests.user_modules.nets import LitNet


class Counting(LitNet):
    """Normalizes its inputs, and reads its loss as a whole number after that."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.before = nn.BatchNorm1d(64, affine=False)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self(self.before(x.flatten(1))), y)
        large = loss.detach() ** 9
        return loss * (1 + int(large - large))  # infinity minus infinity is NaN


class Decomposing(LitNet):
    """Decomposes a matrix in its validation, which NaN does not allow."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        logits = self(batch[0])
        self.log("spread", torch.linalg.cholesky(logits.T @ logits + torch.eye(10, dtype=logits.dtype)).sum())


class Checking(LitNet):
    """Checks its weights in a hook of each batch."""

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if float(self.last.weight.detach().abs().max()) > 1e6:
            raise ArithmeticError("weights are too large")


class Ending(LitNet):
    """Raises in its last hook of a trial."""

    def on_train_end(self) -> None:
        if float(self.hparams["lr"]) > 1:
            raise ArithmeticError("the learning rate is too high")


def bad(number: int = 9, lr: float = 1e30) -> TrialSpec:
    return TrialSpec("dropout", number, number, {"model": 0.2, "drop": 0.2}, lr=lr, weight_decay=0.0)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the numbers of the trials that the vectorized engine has trained by themselves."""
    from dropsearch.training.vectorized import engine

    found: list[int] = []

    class Noted(engine.SequentialEngine):
        def train(self, spec: TrialSpec, feed: Any) -> TrialResult:
            found.append(spec.number)
            return super().train(spec, feed)

    monkeypatch.setattr(engine, "SequentialEngine", Noted)
    return found


@pytest.mark.parametrize(
    ("make", "of_bad", "message"),
    [
        (Counting, [bad(), bad(8)], "convert float NaN to integer"),
        (Decomposing, [bad()], "cholesky"),
        (Checking, [bad()], "weights are too large"),
        (Ending, [bad(lr=2.0)], "the learning rate is too high"),
    ],
)
def test_a_row_that_raises_fails_alone(
    make: type, of_bad: list[TrialSpec], message: str, tmp_path: Path, alone: list[int]
) -> None:
    case, good = Case(make, Digits()), trials(2)
    expected = case.sequential([*of_bad, *good], tmp_path)
    assert {expected[spec.number].state for spec in of_bad} == {"FAIL"}
    found = case.vectorized([of_bad[0], *good, *of_bad[1:]], tmp_path, width=3)
    assert sorted(alone) == sorted(spec.number for spec in of_bad)
    assert_alike(found, expected)
    for spec in of_bad:
        assert message in found[spec.number].reason
        assert found[spec.number].reason == expected[spec.number].reason


def test_a_single_row_that_raises_does_not_end_vectorized_training(tmp_path: Path, alone: list[int]) -> None:
    case, specs = Case(Counting, Digits()), [bad(), *trials(1)]
    assert_alike(case.vectorized(specs, tmp_path, width=1), case.sequential(specs, tmp_path))
    assert alone == [9]


class OnlyAlone(LitNet):
    """Whose steps cannot be taken by many rows in the second epoch."""

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.current_epoch == 1 and type(self.trainer).__name__ != "Trainer":
            raise ArithmeticError("not here")


@pytest.mark.falls_back
def test_an_error_that_a_trial_does_not_raise_by_itself_ends_vectorized_training(tmp_path: Path) -> None:
    from dropsearch.training.vectorized.engine import VectorizedEngine

    case, specs, queue = Case(OnlyAlone, Digits()), trials(3), Queue(trials(3))
    rows = case.source.in_rows()
    assert rows is not None
    engine = VectorizedEngine(case.make_module, rows, case.settings, 2, lambda s: tmp_path / f"v{s.number}")
    engine.run(queue)
    assert "not here" in engine.failure
    assert_alike(queue.results, case.sequential(specs, tmp_path))
