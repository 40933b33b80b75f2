"""The training phases of a run or a worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from dropsearch.core.records import TrialPhase
from dropsearch.experiment import retrainings
from dropsearch.experiment.arm_runner import ArmRunner, Watch
from dropsearch.study.retrainings import RETRAININGS


@dataclass(frozen=True)
class Phase:
    """A phase of a study, which is complete before the next one starts."""

    name: str
    is_search: bool
    """Whether a sampler proposes its trials, whose weights are not kept."""
    left: Callable[[], int]
    """Returns the number of missing trials."""
    train: Callable[[Watch], None]
    is_budgeted: bool = False
    """Whether a budget limits its training."""


def phases(arm_runner: ArmRunner) -> list[Phase]:
    """Return the phases of a study in their order."""
    asked: list[TrialPhase] = [each for each in RETRAININGS if any(each in arm.retrained for arm in arm_runner.studies)]
    varied = [
        Phase(
            RETRAININGS[each].title,
            False,
            partial(retrainings.count_left, arm_runner, each),
            partial(retrainings.vary, arm_runner, phase=each),
        )
        for each in asked
    ]
    repeats = [
        Phase(
            f"repeat {number}", True, partial(arm_runner.trials_left, number), partial(arm_runner.repeat, number=number)
        )
        for number in range(2, arm_runner.context.config.study.repeats + 1)
    ]
    search = Phase("search", True, arm_runner.trials_left, arm_runner.search, is_budgeted=True)
    confirm = Phase("confirm", False, arm_runner.retrainings_left, arm_runner.confirm, is_budgeted=True)
    return [search, confirm, *varied, *repeats]
