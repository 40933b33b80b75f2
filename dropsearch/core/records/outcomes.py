"""Results of a run: outcomes of arms and comparisons between them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dropsearch.core.records.arms import Arm
from dropsearch.core.records.trials import ComparisonMetric, Monitor, TrialResult, TrialSpec


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval: of a mean, or of a paired difference (Hodges and Lehmann 1963)."""

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
    """The Hodges-Lehmann estimate, with an interval over what `covers` names."""
    p: float
    """p value of the exact two-sided Wilcoxon test over seeds; the larger p if test examples are tested too."""
    p_holm: float
    """p value adjusted for all planned contrasts (Holm 1979)."""
    effect: float = math.nan
    """Probability that a random seed of `a` scores higher than one of `b`, ties counted half; nan if unknown."""
    over_seeds: Interval | None = None
    """The interval over seeds only, if `difference` covers more."""
    missing: tuple[str, ...] = ()
    """Sources of variation not covered, such as ``initial weights``; if any, no difference counts as shown."""
    examples: str = "test examples"
    """The examples that the interval covers in addition to seeds, if any."""

    @property
    def covers(self) -> str:
        """The sources of variation that the interval and p cover."""
        return "seeds" if self.over_seeds is None else f"seeds and {self.examples}"


@dataclass(frozen=True)
class Confirmed:
    """A configuration retrained with fresh seeds: its trials, in the order of the seeds."""

    number: int
    """Number of the confirmed search trial."""
    results: tuple[TrialResult, ...]
    trial: TrialResult | None = None
    """The search trial that is confirmed."""
    owner: str = ""
    """In another arm, the arm that searched and retrained it; empty in its own arm."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the retrained trials."""
        return tuple(result.spec.seed for result in self.results)

    @property
    def val_loss(self) -> tuple[float, ...]:
        """Best objective (validation loss) of each seed; inf if the retraining failed in any epoch."""
        return tuple(math.inf if result.state == "FAIL" else result.objective for result in self.results)

    @property
    def val_acc(self) -> tuple[float, ...]:
        """Validation accuracy at the epoch of the best validation loss."""
        return tuple(result.best.val_acc if result.best else math.nan for result in self.results)

    @property
    def mean_val_loss(self) -> float:
        """Mean of `val_loss` over seeds, which decides the winner of an arm."""
        return sum(self.val_loss) / len(self.val_loss) if self.results else math.inf

    @property
    def best(self) -> TrialResult:
        """The retraining with the lowest objective, whose model is kept."""
        return min(self.results, key=lambda result: result.objective)

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
    """Test scores of the confirmed winner of an arm."""

    __test__ = False  # prevents pytest from collecting this class

    opened_at: str
    """Time at which the test set was opened, ISO 8601 in UTC."""
    loss: tuple[float, ...]
    """Mean cross-entropy per seed, in the order of the winner's results."""
    acc: tuple[float, ...]
    loss_by_example: tuple[Sequence[float], ...] = ()
    """`[seeds][examples]` in the order of the test set; `[seeds][groups of examples]` of a user module; empty if it
    cannot be measured on a part of the test set."""
    correct_by_example: tuple[Sequence[float], ...] = ()
    """1 for a correct class, else 0; `[seeds][examples]`."""
    openings: int = 1
    """How often this arm opened the test set; more than once only if a continued study changed the winner."""
    logged: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Metrics that a user module logs on the test set, over all loaders, by name: one value per seed."""
    after: tuple[str, ...] = ()
    """Other arms that an earlier run of the study had tested when this arm opened the test set."""
    loss_name: str = "test_loss"
    """Name of `loss`; of a user module it is the monitored metric on the test set."""

    @property
    def test_loss(self) -> tuple[float, ...]:
        """What is named test_loss, per seed; empty if it is not known."""
        return self.loss if self.loss_name == "test_loss" else self.logged.get("test_loss", ())


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
    val_by_example: tuple[Sequence[float], ...] = ()
    """The monitored metric `[seeds][groups of validation examples]`, if there is no test set; empty if unknown."""

    @property
    def best(self) -> TrialResult | None:
        """The search trial with the lowest objective (validation loss), before confirmation."""
        complete = [t for t in self.trials if t.state == "COMPLETE" and t.best is not None]
        return min(complete, key=lambda trial: trial.objective, default=None)

    @property
    def chosen(self) -> TrialResult | None:
        """The search trial of the confirmed winner, or the best search trial."""
        if self.winner is None or self.winner.trial is not None:
            return self.winner.trial if self.winner else self.best
        return next((trial for trial in self.trials if trial.spec.number == self.winner.number), None)

    @property
    def found(self) -> TrialSpec | None:
        """The configuration of the winner, or of the best search trial; None without either."""
        if self.winner is not None and self.winner.results:
            return self.winner.results[0].spec
        return self.chosen.spec if self.chosen else None

    @property
    def rates(self) -> Mapping[str, float]:
        """The found rates by site."""
        return self.found.rates if self.found else {}

    @property
    def hyperparameters(self) -> Mapping[str, Any]:
        """Other found values by configuration key."""
        return self.found.hyperparameters if self.found else {}

    def scores(self, metric: ComparisonMetric) -> tuple[float, ...]:
        """Return the winner's scores of a comparison metric, one per seed; empty if there are none."""
        if metric.scores == "val_loss":
            return tuple(map(self.monitor.objective, self.winner.val_loss)) if self.winner else ()
        if self.test is None:
            return ()
        return self.test.acc if metric.scores == "test_acc" else self.test.loss


SIMPLICITY = ("none", "batchnorm", "typical", "dropout_shared", "dropout", "both")
"""Arms by simplicity, simplest first: fewer rates to set are simpler."""


def best_arm(arms: Mapping[str, ArmOutcome]) -> str | None:
    """Return the simplest arm whose winner is tied with the best on validation, or None if no arm has a winner.

    The best winner has the lowest mean validation loss on fresh seeds. Another one is tied if its mean is larger by at
    most one standard error of the difference, paired by seed (one-standard-error rule, Breiman et al. 1984). The test
    set is not used, since it judges this selection.
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
