"""What is trained in a run or by a worker, phase by phase."""

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
    """A part of a study that is complete before the next one begins."""

    name: str
    is_search: bool
    """Whether trials are proposed by a sampler; their weights are not kept."""
    left: Callable[[], int]
    """Returns how many trials it still lacks."""
    train: Callable[[Watch], None]
    is_budgeted: bool = False
    """Whether a budget decides how much of it is trained."""


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
