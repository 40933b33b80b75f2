"""What dropout did in the confirmed winners of a run: measured seed by seed, contrasted, and said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from dropsearch.core.records.outcomes import Comparison, Interval

Answer = Literal["held", "did not hold", "not shown", "not measured"]
"""`not shown`: measured, and the numbers decide nothing; `not measured`: there is no number."""


@dataclass(frozen=True)
class Quantity:
    """What a measured number is."""

    label: str
    """As it stands in tables and at axes: `gap at the best epoch`."""
    unit: str = ""
    """Such as nats; empty for a share or another plain number."""
    higher_is_better: bool | None = None
    """None where neither is."""


@dataclass(frozen=True)
class Series:
    """A curve of each retraining of an arm's winner."""

    x: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]
    """[seeds][points], seeds in the order of `ArmEvidence.seeds`."""


@dataclass(frozen=True)
class ArmEvidence:
    """What was measured on an arm's winner, once for each seed that it was retrained on."""

    seeds: tuple[int, ...]
    measures: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """By the measure's name, one number a seed; nan where a model does not have it."""
    series: Mapping[str, Series] = field(default_factory=dict)
    """By the measure's name."""


@dataclass(frozen=True)
class Variation:
    """An arm's winner with something changed, retrained on the same seeds."""

    name: str
    """What was changed: `net.hidden1.dropout = 0`, or `= mean`, which is that of the other sites."""
    rates: Mapping[str, float]
    scores: tuple[float, ...]
    """The best value of what is monitored (the validation loss), one a seed; not finite where it failed."""
    comparison: Comparison
    """The variation minus the winner, adjusted for all variations of the arm."""


@dataclass(frozen=True)
class Response:
    """How the score (what is monitored) depends on the rate of one site, as the trials of an arm's search show it."""

    site: str
    rates: tuple[float, ...]
    """A grid over the range that was searched."""
    expected: tuple[float, ...]
    """The expected score at each rate of the grid, averaged over what else was searched."""
    low: tuple[float, ...]
    high: tuple[float, ...]
    """The 95 % band of `expected`."""
    importance: float
    """The site's share of what the rates explain of the scores of good trials (PED-ANOVA); nan where unknown."""
    found: float
    """The rate of the arm's winner."""
    typical: float
    """The typical rate."""


@dataclass(frozen=True)
class Budget:
    """The best score (of what is monitored) that an arm's search comes to with a number of trials."""

    trials: tuple[int, ...]
    expected: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    """The 95 % band of `expected`; infinite where nothing bounds the score."""
    source: Literal["trials", "repeats"]
    """Estimated from independent trials of one search, or seen in repeated searches."""


@dataclass(frozen=True)
class Claim:
    """A claim about dropout, and what this run says of it."""

    name: str
    """overfitting, coadaptation, robustness, ensemble, rates, batchnorm."""
    statement: str
    """The claim, in words."""
    answer: Answer
    measure: str
    """The measure that decides, and for which arms: `gap, dropout minus none`."""
    number: Interval
    reason: str
    """The sentence that gives the numbers on which the answer rests."""
    figure: str = ""
    """The stem of the figure that shows it; empty where none does."""
    unit: str = ""
    """Of the number as it is told; empty for a share or another plain number."""
    scale: float = 1.0
    """What the number is multiplied by to be told in `unit`: 100 for an accuracy in points."""


@dataclass(frozen=True)
class Evidence:
    """All that was measured on the winners of a run."""

    arms: Mapping[str, ArmEvidence]
    contrasts: tuple[Comparison, ...] = ()
    """Paired differences of measures between arms; `metric` is the measure's name."""
    claims: tuple[Claim, ...] = ()
    responses: Mapping[str, tuple[Response, ...]] = field(default_factory=dict)
    """By arm, one for each site whose rate was searched."""
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    """By arm."""
    seconds: float = 0.0
    """What it took."""
    notes: tuple[str, ...] = ()
    """What was not measured, and why."""
    single_sites: Mapping[str, tuple[Variation, ...]] = field(default_factory=dict)
    """By arm, its winner with the rate of one site changed; empty where that was not asked for."""
    quantities: Mapping[str, Quantity] = field(default_factory=dict)
    """What each measure of `arms` is, by its name."""
