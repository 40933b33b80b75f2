"""Tests of the confirmed winners, recorded in their studies, so that the test set is opened once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from dropsearch.core.errors import InputError, RunError
from dropsearch.core.records import ArmOutcome, Confirmed, TestScores, TrialResult
from dropsearch.core.user_errors import USER_ERRORS, described
from dropsearch.experiment.checkpoints import checkpoint, kept_checkpoint
from dropsearch.experiment.context import ExperimentContext
from dropsearch.experiment.scoring import ExampleResults, TestResult
from dropsearch.experiment.studies import ArmStudies


class WinnerTests:
    """Measures winners on the test set or, without one, on the examples of the validation set."""

    def __init__(self, context: ExperimentContext, studies: Sequence[ArmStudies]) -> None:
        self._context = context
        self._tested_before = {arm.arm.name for arm in studies if _openings(arm)}

    def judged(
        self, arm: ArmStudies, outcome: ArmOutcome, best: Confirmed, step: Callable[[], None] = lambda: None
    ) -> ArmOutcome:
        """Return an outcome with the winner's test scores or, without a test set, its validation scores by example."""
        if self._context.source.has_test:
            return dataclasses.replace(outcome, test=self._test(arm, best, step))
        parts = [self._validation_examples(result) for result in best.results]
        whole = [part for part in parts if part is not None]
        return dataclasses.replace(outcome, val_by_example=tuple(whole) if len(whole) == len(parts) else ())

    def _validation_examples(self, result: TrialResult) -> Sequence[float] | None:
        """Return the monitored metric on each group of validation examples, from the file or measured again."""
        kept = ExampleResults.read(self._examples_path(result))
        if kept is not None:
            return kept.loss
        path = kept_checkpoint(self._context.checkpoints, result)
        measured = self._context.validation_scores(result, path) if path.exists() else None
        if measured is not None:
            ExampleResults(measured, [math.nan] * len(measured)).write(self._examples_path(result))
        return measured

    def check_opened(self, arm: ArmStudies, best: Confirmed) -> None:
        """Check that the winner of an arm was tested.

        Raises:
            InputError: It was not.
        """
        if self._context.source.has_test and _opening(best) not in arm.confirm.notes:
            raise InputError(
                unfinished(self._context.config.study.name, f"arm {arm.arm.name} has not seen the test set")
            )

    def check_kept(self, results: Sequence[TrialResult]) -> None:
        """Check that the checkpoints of retrainings exist.

        Raises:
            InputError: A checkpoint is missing.
        """
        for result in results:
            path = kept_checkpoint(self._context.checkpoints, result)
            if not path.exists():
                raise InputError(
                    f"task=evidence needs the checkpoints of the run, but {path} is missing: repeat the command "
                    f"without task=evidence to train {result.spec.key} again"
                )

    def _test(self, arm: ArmStudies, best: Confirmed, step: Callable[[], None] = lambda: None) -> TestScores:
        """Return the winner's recorded test scores, or measure and record them."""
        opening = _opening(best)
        scores = arm.confirm.notes.get(opening)
        if scores is None:
            measured = [self._score(result, step) for result in best.results]
            now = datetime.now(UTC).isoformat(timespec="seconds")
            scores = {"opened_at": now, "loss": [m.loss for m in measured], "acc": [m.acc for m in measured]}
            scores["after"] = sorted(self._tested_before - {arm.arm.name})
            if names := measured[0].logged:
                scores["logged"] = {name: [m.logged.get(name, math.nan) for m in measured] for name in names}
            arm.confirm.note(opening, scores)
        known = [self._examples(result) for result in best.results]
        known = known if any(known) else []
        metric = self._context.modules.comparison_metric
        return TestScores(
            scores["opened_at"],
            tuple(scores["loss"]),
            tuple(scores["acc"]),
            tuple(each.loss if each else () for each in known),
            tuple(each.correct if each else () for each in known),
            len(_openings(arm)),
            {name: tuple(values) for name, values in scores.get("logged", {}).items()},
            tuple(scores.get("after", ())),
            metric.metric if metric.scores == "test_loss" else "test_loss",
        )

    def _score(self, result: TrialResult, step: Callable[[], None] = lambda: None) -> TestResult:
        path = kept_checkpoint(self._context.checkpoints, result)
        if not path.exists():
            raise RunError(f"{path} is missing: repeat the command to train {result.spec.key} again")
        model = self._context.load(result, path)
        try:
            measured = self._context.modules.test_scores(model)
        except InputError:
            raise
        except USER_ERRORS as error:
            raise TestSetError(f"{result.spec.key}: {described(error)}") from error
        if measured.examples is not None:
            measured.examples.write(self._examples_path(result))
        step()
        return measured

    def _examples(self, result: TrialResult) -> ExampleResults | None:
        """Return a tested model's results by example, from the file or measured again."""
        kept = ExampleResults.read(self._examples_path(result))
        # A module's steps may write files, so a module without results by example is not run again.
        if kept is not None or not self._context.modules.scores_by_example:
            return kept
        return self._score(result).examples if kept_checkpoint(self._context.checkpoints, result).exists() else None

    def _examples_path(self, result: TrialResult) -> Path:
        return checkpoint(self._context.checkpoints, result.spec).with_suffix(".npz")


class TestSetError(Exception):
    """A winner could not be tested."""

    __test__ = False


def _openings(arm: ArmStudies) -> list[str]:
    """Return the names of the notes with test scores of an arm."""
    return [name for name in arm.confirm.notes if name.startswith("test.")]


def _opening(best: Confirmed) -> str:
    """Return the name of the note with a winner's test scores in its study."""
    owner = f"{best.owner}." if best.owner else ""
    return f"test.{owner}{best.number}.{len(best.seeds)}"


def unfinished(study: str, what: str) -> str:
    """Return the error message of `task=evidence` for an unfinished study."""
    return (
        f"task=evidence needs a finished run, but study {study} is not finished: {what}; repeat the command without "
        "task=evidence to continue it"
    )
