"""What a run found, arm by arm and arm against arm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from dropsearch.core.records.arms import Arm
from dropsearch.core.records.metrics import Monitor
from dropsearch.core.records.trials import TrialResult


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval: of a mean, or of a paired difference (Hodges and Lehmann 1963)."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A paired difference between two arms: metric of `a` minus metric of `b`, seed by seed."""

    a: str
    b: str
    metric: str
    differences: tuple[float, ...]
    difference: Interval
    p: float
    """Exact two-sided Wilcoxon signed-rank."""
    p_holm: float
    """Adjusted for all contrasts that were planned (Holm 1979)."""
    effect: float = math.nan
    """The probability that a random seed of `a` scores higher than a random seed of `b`, ties half; nan if unknown."""


@dataclass(frozen=True)
class Confirmed:
    """One configuration retrained on fresh seeds: its trials, in the order of the seeds."""

    number: int
    """The number of the search trial that is confirmed."""
    results: tuple[TrialResult, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the retrained trials."""
        return tuple(result.spec.seed for result in self.results)

    @property
    def val_loss(self) -> tuple[float, ...]:
        """Best objective (validation loss) of each seed; inf where a retraining failed, however well it had begun."""
        return tuple(r.best.objective if r.best and r.state != "FAIL" else math.inf for r in self.results)

    @property
    def val_acc(self) -> tuple[float, ...]:
        """Validation accuracy at the epoch of the best validation loss."""
        return tuple(result.best.val_acc if result.best else math.nan for result in self.results)

    @property
    def mean_val_loss(self) -> float:
        """The mean of `val_loss`: what decides the winner of an arm."""
        return sum(self.val_loss) / len(self.val_loss) if self.results else math.inf


@dataclass(frozen=True)
class TestScores:
    """What the confirmed winner of an arm scored when the test set was opened."""

    __test__ = False  # not a test class, whatever its name says to pytest

    opened_at: str
    """ISO 8601, UTC."""
    loss: tuple[float, ...]
    """Mean cross-entropy, one a seed, in the order of the winner's results."""
    acc: tuple[float, ...]
    openings: int = 1
    """How often the arm's study has opened the test set: again only where continuing it changed the winner."""


@dataclass(frozen=True)
class ArmOutcome:
    """All that is known of an arm."""

    arm: Arm
    trials: tuple[TrialResult, ...]
    confirmed: tuple[Confirmed, ...] = ()
    winner: Confirmed | None = None
    test: TestScores | None = None
    typical: Mapping[str, float] = field(default_factory=dict)
    """The typical rate of each site of this arm, beside which the rates found are shown."""
    monitor: Monitor = field(default_factory=Monitor)
    repeats: tuple[tuple[TrialResult, ...], ...] = ()
    """The trials of each repetition of the search; nothing is chosen among them."""

    @property
    def best(self) -> TrialResult | None:
        """The trial with the least validation loss of the search, before confirmation."""
        complete = [t for t in self.trials if t.state == "COMPLETE" and t.best is not None]
        return min(complete, key=lambda t: t.best.objective if t.best else math.inf, default=None)


def best_arm(arms: Mapping[str, ArmOutcome]) -> str | None:
    """Return the arm whose confirmed winner has the least mean validation loss, None where there is none.

    The test set has no say in it: it is for judging the choice, not for making it.
    """
    won = {name: outcome.winner for name, outcome in arms.items() if outcome.winner}
    return min(won, key=lambda name: won[name].mean_val_loss, default=None)
