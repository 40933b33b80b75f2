"""Results of a run: outcomes of arms and comparisons between them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from dropsearch.core.records.arms import Arm
from dropsearch.core.records.metrics import Monitor
from dropsearch.core.records.trials import TrialResult


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A paired comparison of two arms: metric of `a` minus metric of `b` for each seed."""

    a: str
    b: str
    metric: str
    differences: tuple[float, ...]
    difference: Interval
    p: float
    """p value of the exact two-sided Wilcoxon signed-rank test."""
    p_holm: float
    """p value adjusted for all planned contrasts (Holm 1979)."""
    effect: float = math.nan
    """Probability that a random seed of `a` scores higher than one of `b`, ties counted half; nan if unknown."""


@dataclass(frozen=True)
class Confirmed:
    """A configuration retrained with fresh seeds: its trials, in the order of the seeds."""

    number: int
    """Number of the confirmed search trial."""
    results: tuple[TrialResult, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the retrained trials."""
        return tuple(result.spec.seed for result in self.results)

    @property
    def val_loss(self) -> tuple[float, ...]:
        """Best objective (validation loss) of each seed; inf if the retraining failed in any epoch."""
        return tuple(r.best.objective if r.best and r.state != "FAIL" else math.inf for r in self.results)

    @property
    def val_acc(self) -> tuple[float, ...]:
        """Validation accuracy at the epoch of the best validation loss."""
        return tuple(result.best.val_acc if result.best else math.nan for result in self.results)

    @property
    def mean_val_loss(self) -> float:
        """Mean of `val_loss` over seeds, which decides the winner of an arm."""
        return sum(self.val_loss) / len(self.val_loss) if self.results else math.inf


@dataclass(frozen=True)
class TestScores:
    """Test scores of the confirmed winner of an arm."""

    __test__ = False  # prevents pytest from collecting this class

    opened_at: str
    """Time at which the test set was opened, ISO 8601 in UTC."""
    loss: tuple[float, ...]
    """Mean cross-entropy per seed, in the order of the winner's results."""
    acc: tuple[float, ...]
    openings: int = 1
    """How often this arm opened the test set; more than once only if a continued study changed the winner."""


@dataclass(frozen=True)
class ArmOutcome:
    """All results of an arm."""

    arm: Arm
    trials: tuple[TrialResult, ...]
    confirmed: tuple[Confirmed, ...] = ()
    winner: Confirmed | None = None
    test: TestScores | None = None
    typical: Mapping[str, float] = field(default_factory=dict)
    """Typical rate of each site of this arm, for comparison with the found rates."""
    monitor: Monitor = field(default_factory=Monitor)
    repeats: tuple[tuple[TrialResult, ...], ...] = ()
    """Trials of each repetition of the search, which are not used for selection."""

    @property
    def best(self) -> TrialResult | None:
        """The search trial with the lowest objective (validation loss), before confirmation."""
        complete = [t for t in self.trials if t.state == "COMPLETE" and t.best is not None]
        return min(complete, key=lambda t: t.best.objective if t.best else math.inf, default=None)


def best_arm(arms: Mapping[str, ArmOutcome]) -> str | None:
    """Return the arm whose confirmed winner has the lowest mean validation loss, or None if no arm has a winner.

    The test set is not used, since it judges this selection.
    """
    winners = {name: outcome.winner for name, outcome in arms.items() if outcome.winner}
    return min(winners, key=lambda name: winners[name].mean_val_loss, default=None)
