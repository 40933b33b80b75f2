"""What a run found, arm by arm and arm against arm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    """The Hodges-Lehmann estimate, with an interval over what `covers` names."""
    p: float
    """Exact two-sided Wilcoxon signed-rank over seeds; where test examples count too, not less than their p."""
    p_holm: float
    """Adjusted for all contrasts that were planned (Holm 1979)."""
    effect: float = math.nan
    """The probability that a random seed of `a` scores higher than a random seed of `b`, ties half; nan if unknown."""
    over_seeds: Interval | None = None
    """The interval over seeds alone, where `difference` covers more."""

    @property
    def covers(self) -> str:
        """The sources of luck that the interval and p take in."""
        return "seeds" if self.over_seeds is None else "seeds and test examples"


@dataclass(frozen=True)
class Confirmed:
    """One configuration retrained on fresh seeds: its trials, in the order of the seeds."""

    number: int
    """The number of the search trial that is confirmed."""
    results: tuple[TrialResult, ...]
    trial: TrialResult | None = None
    """The search trial that is confirmed."""
    owner: str = ""
    """The arm that searched and retrained it, where it stands in another arm too; empty in its own arm."""

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

    @property
    def drops(self) -> bool:
        """Whether any rate is above 0."""
        return any(rate > 0 for result in self.results[:1] for rate in result.spec.rates.values())

    @property
    def failed(self) -> tuple[TrialResult, ...]:
        """The retrainings that failed."""
        return tuple(result for result in self.results if result.state == "FAIL")


@dataclass(frozen=True)
class TestScores:
    """What the confirmed winner of an arm scored when the test set was opened."""

    __test__ = False  # not a test class, whatever its name says to pytest

    opened_at: str
    """ISO 8601, UTC."""
    loss: tuple[float, ...]
    """Mean cross-entropy, one a seed, in the order of the winner's results."""
    acc: tuple[float, ...]
    loss_by_example: tuple[Sequence[float], ...] = ()
    """[seeds][examples], in the order of the test set; empty where a module gives no results by example."""
    correct_by_example: tuple[Sequence[float], ...] = ()
    """1 where the class was right, else 0; [seeds][examples]."""
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


SIMPLICITY = ("none", "batchnorm", "typical", "dropout_shared", "dropout", "both")
"""The arms, the simplest model first: the fewer rates there are to set, the simpler."""


def best_arm(arms: Mapping[str, ArmOutcome]) -> str | None:
    """Return the arm to use: the simplest whose winner is tied with the best on validation; None where none won.

    The best is the winner with the least mean validation loss on fresh seeds. Another is tied with it where its mean
    is larger by no more than one standard error of the difference, paired by seed (the rule of one standard error,
    Breiman et al. 1984). The test set has no say in it: it judges the choice and does not make it.
    """
    won = {name: outcome.winner for name, outcome in arms.items() if outcome.winner}
    first = min(won, key=lambda name: won[name].mean_val_loss, default=None)
    if first is None:
        return None
    tied = [name for name, winner in won.items() if name == first or _is_tied(winner, won[first])]
    return min(tied, key=lambda name: SIMPLICITY.index(name) if name in SIMPLICITY else len(SIMPLICITY))


def _is_tied(winner: Confirmed, best: Confirmed) -> bool:
    known = dict(zip(best.seeds, best.val_loss, strict=True))
    differences = [
        loss - known[seed] for seed, loss in zip(winner.seeds, winner.val_loss, strict=True) if seed in known
    ]
    if not differences or not all(map(math.isfinite, differences)):
        return False
    mean = sum(differences) / len(differences)
    if len(differences) == 1:
        return mean == 0
    variance = sum((difference - mean) ** 2 for difference in differences) / (len(differences) - 1)
    return mean <= math.sqrt(variance / len(differences))
