"""Effects of dropout in the confirmed winners, and the summary of a run, as shown in reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dropsearch.core.records.arms import Site
from dropsearch.core.records.outcomes import ArmOutcome, Comparison, Interval
from dropsearch.core.records.trials import ComparisonMetric, Monitor

Answer = Literal["held", "did not hold", "undecided", "not measured"]
"""`undecided`: measured, but inconclusive; `not measured`: there is no number."""


@dataclass(frozen=True)
class Quantity:
    """Label, unit and direction of a measure."""

    label: str
    """Label in tables and at axes, for example `gap at the best epoch`."""
    unit: str = ""
    """For example nats; empty for a dimensionless number."""
    higher_is_better: bool | None = None
    """None if neither direction is better."""


@dataclass(frozen=True)
class Series:
    """A curve for each retraining of an arm's winner."""

    x: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]
    """`[seeds][points]`; seeds in the order of `ArmEvidence.seeds`."""


@dataclass(frozen=True)
class ArmEvidence:
    """Measures of an arm's winner for each seed it was retrained with."""

    seeds: tuple[int, ...]
    measures: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """One number per seed, by name of the measure; nan if the measure does not apply to the model."""
    series: Mapping[str, Series] = field(default_factory=dict)
    """By name of the measure."""


@dataclass(frozen=True)
class Variation:
    """A variation of an arm's winner, retrained with the same seeds."""

    name: str
    """The change, for example `net.hidden1.dropout = 0`, or `= mean` for the mean rate of the other sites."""
    rates: Mapping[str, float]
    scores: tuple[float, ...]
    """Best value of the monitored metric (the validation loss) per seed; not finite if the retraining failed."""
    comparison: Comparison
    """Variation minus winner, adjusted for all variations of the arm."""


@dataclass(frozen=True)
class Response:
    """The monitored metric as a function of the rate of one site, estimated from the trials of an arm's search."""

    site: str
    rates: tuple[float, ...]
    """Grid over the searched range."""
    expected: tuple[float, ...]
    """Expected score at each rate of the grid, averaged over the other searched parameters."""
    low: tuple[float, ...]
    high: tuple[float, ...]
    """The 95 % band of `expected`."""
    importance: float
    """The site's share of the importance of all rates (PED-ANOVA); nan if unknown."""
    found: float
    typical: float


@dataclass(frozen=True)
class Budget:
    """The expected best value of the monitored metric as a function of the number of trials of an arm's search."""

    trials: tuple[int, ...]
    expected: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    """The 95 % band of `expected`; infinite if the score is unbounded."""
    source: Literal["trials", "repeats"]
    """Whether it is estimated from independent trials of one search, or observed in repeated searches."""


@dataclass(frozen=True)
class Claim:
    """A claim about dropout, and whether it held in this run."""

    name: str
    """overfitting, coadaptation, robustness, ensemble, rates, batchnorm."""
    statement: str
    answer: Answer
    measure: str
    """The deciding measure and arms, for example `gap, dropout minus none`."""
    number: Interval
    reason: str
    """A sentence with the numbers that the answer is based on."""
    figure: str = ""
    """File stem of the figure that shows it; empty if there is none."""
    unit: str = ""
    """Unit of the displayed number; empty for a dimensionless number."""
    scale: float = 1.0
    """Factor that converts the number to `unit`, for example 100 for an accuracy in points."""


@dataclass(frozen=True)
class Evidence:
    """All measurements of the winners of a run."""

    arms: Mapping[str, ArmEvidence]
    contrasts: tuple[Comparison, ...] = ()
    """Paired differences of measures between arms; `metric` is the measure's name."""
    claims: tuple[Claim, ...] = ()
    responses: Mapping[str, tuple[Response, ...]] = field(default_factory=dict)
    """By arm, one for each site with a searched rate."""
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    """What was not measured, and why."""
    variations: Mapping[str, Mapping[str, tuple[Variation, ...]]] = field(default_factory=dict)
    """Retrainings of the winners with a change, by title ("single sites") and arm; empty if not requested."""
    quantities: Mapping[str, Quantity] = field(default_factory=dict)
    """Label and unit of each measure, by name."""

    def quantity(self, name: str) -> Quantity:
        """Return the label and unit of a measure; by default its name."""
        return self.quantities.get(name, Quantity(name.replace("_", " ")))


@dataclass(frozen=True)
class Summary:
    """All results of a run that the report, MLflow's parent run and results.json show."""

    study: str
    model: str
    data: str
    seed: int
    versions: Mapping[str, str]
    seconds: float
    engine: str
    sites: tuple[Site, ...]
    """The sites of the model in its dropout arms, in the order of a forward pass."""
    arms: Mapping[str, ArmOutcome]
    comparisons: tuple[Comparison, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    """The resolved configuration as plain containers."""
    tracking: Mapping[str, str] = field(default_factory=dict)
    """Locations of the tracked runs: tracking_uri, experiment, experiment_id and run_id of MLflow's parent run; project
    and url of W&B; logdir of TensorBoard. Empty with tracking=none."""
    commands: Mapping[str, str] = field(default_factory=dict)
    """Commands for the user, by purpose: "mlflow", "run", "wandb", "tensorboard" (see the curves), "reload" (load the
    winner), "retrain", "continue"."""
    not_loaded: str = ""
    """Why no command loads the winner; empty if one does or there is none."""
    answer: tuple[str, ...] = ()
    """The sentences of the report's answer and of what limits it, for trackers."""
    monitor: Monitor = field(default_factory=Monitor)
    comparison_metric: ComparisonMetric = field(default_factory=ComparisonMetric)
    notes: tuple[str, ...] = ()
    """Restrictions of this run, such as parameters that were not searched."""
    fixed_luck: tuple[str, ...] = ()
    """Sources of variation that do not depend on a trial's seed, such as ``initial weights`` or ``batch order``.

    Differences between arms over seeds do not cover this variation, so none of them is shown.
    """
    redraws_split: bool = False
    """Whether each seed of the confirmation also drew its split into training and validation set.

    If not, all models share the split that the data came with. Differences are then shown for that split.
    """
    overlaps: tuple[str, ...] = ()
    """Sentences about examples of validation or test set that are also training examples."""
    own_arguments: Mapping[str, str] = field(default_factory=dict)
    """By arm, the arguments in which its module differs from that of the arm without dropout beside it, `width=32`."""
    without_effect: Mapping[str, str] = field(default_factory=dict)
    """What was found of searched sites whose rates do not change the loss, by site."""
    evidence: Evidence | None = None
    """Measured effects of dropout in the winners; None if not measured."""
    trained_before: int = 0
    """Number of trials and retrainings of earlier commands, which `seconds` does not count."""
    complete: bool = True
    """False if the run was interrupted, so that results are partial."""

    @property
    def contrasts(self) -> list[Comparison]:
        """The planned contrasts of the comparison metric."""
        return [each for each in self.comparisons if each.metric == self.comparison_metric.metric]
