"""The arms against each other, seed by seed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from dropsearch.core.records import ArmEvidence, ArmOutcome, Comparison, ComparisonMetric, Interval
from dropsearch.stats.crossed import crossed_difference
from dropsearch.stats.hodges_lehmann import paired_difference
from dropsearch.stats.paired_tests import holm, superiority, wilcoxon_exact

PLANNED = (
    ("dropout", "none"),
    ("batchnorm", "none"),
    ("both", "none"),
    ("batchnorm", "dropout"),
    ("both", "dropout"),
    ("both", "batchnorm"),
    ("dropout", "dropout_shared"),
    ("dropout", "typical"),
)
"""All pairs of the four arms, then a rate for each site against one for all sites and against typical rates."""
METRICS = ("test_acc", "test_loss", "val_loss")
ByExample = Mapping[int, Sequence[float]]
"""By seed, one number for each test example."""


@dataclass(frozen=True)
class Pairs:
    """What two arms scored on the seeds that both have."""

    a: tuple[float, ...]
    b: tuple[float, ...]
    dropped: int
    """Seeds that both have and that are left out, since one of the two scores is not finite."""
    seeds: tuple[int, ...] = ()
    """The seeds of the pairs."""

    @property
    def differences(self) -> tuple[float, ...]:
        """`a` minus `b`, pair by pair."""
        return tuple(one - other for one, other in zip(self.a, self.b, strict=True))


def planned_contrasts(arms: Iterable[str]) -> list[tuple[str, str]]:
    """The pairs of arms that are compared, decided before any result is seen; only those whose arms ran."""
    ran: Collection[str] = set(arms)
    return [(a, b) for a, b in PLANNED if a in ran and b in ran]


def paired(a: ArmOutcome, b: ArmOutcome, metric: str) -> Pairs:
    """Pair two tested arms by seed, in the order of `a`'s seeds, and leave out pairs that are not finite.

    Raises ValueError for a metric other than test_acc and test_loss, and for an arm without test scores.
    """
    return _pairs(_scores(a, metric), _scores(b, metric))


def _pairs(first: Mapping[int, float], second: Mapping[int, float]) -> Pairs:
    shared = [seed for seed in first if seed in second]
    finite = [seed for seed in shared if math.isfinite(first[seed]) and math.isfinite(second[seed])]
    return Pairs(
        a=tuple(first[seed] for seed in finite),
        b=tuple(second[seed] for seed in finite),
        dropped=len(shared) - len(finite),
        seeds=tuple(finite),
    )


def contrasts_of(
    values: Mapping[str, Mapping[int, float]], metric: str, missing: tuple[str, ...] = ()
) -> tuple[Comparison, ...]:
    """Every planned contrast of any number that the arms have, p-values adjusted for all of them.

    An arm that has no finite value stays in the family, and so its contrasts have p = 1 and an interval of NaN: an
    arm that diverged makes no other contrast easier to show. Leave an arm out that cannot have the number at all.

    Args:
        values: By arm, the number by seed.
        metric: The number's name.
        missing: Luck that seeds do not vary.
    """
    return contrasted(values, planned_contrasts(values), metric, missing=missing)


def contrasted(
    values: Mapping[str, Mapping[int, float]],
    contrasts: Sequence[tuple[str, str]],
    metric: str,
    examples: Mapping[str, ByExample] = MappingProxyType({}),
    *,
    missing: tuple[str, ...] = (),
    required: str = "",
) -> tuple[Comparison, ...]:
    """The first of each pair of names minus the second, seed by seed, p-values adjusted for all pairs.

    Args:
        values: By name, the number by seed.
        contrasts: Which names are compared.
        metric: The number's name.
        examples: By name, the number of each test example by seed; where both names of a pair have it, interval and p
            are over seeds and examples.
        missing: Luck that seeds do not vary.
        required: What examples interval and p must cover beside seeds; missing where a pair has no results by example.
    """
    found = [_contrast(a, b, _pairs(values[a], values[b]), metric, examples, required) for a, b in contrasts]
    found = [dataclasses.replace(each, missing=(*missing, *each.missing)) for each in found]
    adjusted = holm([comparison.p for comparison in found])
    return tuple(dataclasses.replace(each, p_holm=p) for each, p in zip(found, adjusted, strict=True))


def _contrast(
    a: str, b: str, pairs: Pairs, metric: str, examples: Mapping[str, ByExample], required: str
) -> Comparison:
    difference, p = paired_difference(pairs.a, pairs.b), wilcoxon_exact(pairs.differences)
    found = Comparison(a, b, metric, pairs.differences, difference, p, p, superiority(pairs.a, pairs.b))
    if not math.isfinite(difference.low):
        return found
    crossed = _by_example(examples.get(a, {}), examples.get(b, {}), pairs.seeds)
    if crossed is None:
        return dataclasses.replace(found, missing=(required,) if required else ())
    over_both, p_both = crossed_difference(crossed)
    return dataclasses.replace(
        found,
        # Both must leave out zero for a difference to be shown; an interval that both lie in says so by itself.
        difference=Interval(difference.mean, min(difference.low, over_both.low), max(difference.high, over_both.high)),
        p=max(p, p_both),
        over_seeds=difference,
        examples=required or found.examples,
    )


def _by_example(a: ByExample, b: ByExample, seeds: Sequence[int]) -> NDArray[np.float64] | None:
    """Return the differences [seeds, examples]; None where one of the two lacks a finite result of a seed."""
    if len(seeds) < 2 or not all(seed in a and seed in b and len(a[seed]) == len(b[seed]) for seed in seeds):
        return None
    one, other = (np.array([of[seed] for seed in seeds], dtype=np.float64) for of in (a, b))
    differences = one - other
    return differences if differences.size and np.isfinite(differences).all() else None


def compare(arms: Mapping[str, ArmOutcome], metrics: tuple[str, ...] = ("test_acc",)) -> tuple[Comparison, ...]:
    """Every planned contrast of the arms whose test set was opened, p-values adjusted metric by metric.

    A contrast without a single finite pair stays in the family, with p = 1 and an interval of NaN, and so does
    one whose arm has no winner: an arm that diverged makes no other contrast easier to show.
    """
    if not any(_is_tested(arm) for arm in arms.values()):
        return ()
    return tuple(comparison for metric in metrics for comparison in _family(arms, metric))


def compared(
    arms: Mapping[str, ArmOutcome],
    comparison_metric: ComparisonMetric,
    more: Sequence[tuple[str, str]] = (),
    *,
    fixed_luck: tuple[str, ...] = (),
) -> tuple[Comparison, ...]:
    """Every planned contrast by what the run's arms are judged by, under its name, and `more`, adjusted together.

    The test scores, or where there is no test set the validation scores of the winners' retrainings. `fixed_luck` is
    what seeds do not vary (`Summary.fixed_luck`).
    """
    found = (
        _family(arms, comparison_metric.scores, more, fixed_luck)
        if any(_is_scored(arm, comparison_metric.scores) for arm in arms.values())
        else ()
    )
    return tuple(dataclasses.replace(comparison, metric=comparison_metric.metric) for comparison in found)


def _is_scored(arm: ArmOutcome, metric: str) -> bool:
    return arm.winner is not None if metric == "val_loss" else _is_tested(arm)


def _is_tested(arm: ArmOutcome) -> bool:
    return arm.test is not None and arm.winner is not None


def _family(
    arms: Mapping[str, ArmOutcome],
    metric: str,
    more: Sequence[tuple[str, str]] = (),
    fixed_luck: tuple[str, ...] = (),
) -> tuple[Comparison, ...]:
    scored = {name: _scores(arm, metric) if _is_scored(arm, metric) else {} for name, arm in arms.items()}
    examples = {name: _examples(arm, metric) for name, arm in arms.items()}
    required = "validation examples" if metric == "val_loss" else "test examples"
    pairs = [*planned_contrasts(scored), *more]
    return contrasted(scored, pairs, metric, examples, missing=fixed_luck, required=required)


def _examples(outcome: ArmOutcome, metric: str) -> ByExample:
    """Score of each test example by seed; empty where that is not known."""
    if outcome.winner is None:
        return {}
    if metric == "val_loss":
        return dict(zip(outcome.winner.seeds, outcome.val_by_example, strict=False))
    if outcome.test is None:
        return {}
    known = outcome.test.correct_by_example if metric == "test_acc" else outcome.test.loss_by_example
    return dict(zip(outcome.winner.seeds, known, strict=False))


def _scores(outcome: ArmOutcome, metric: str) -> dict[int, float]:
    """Score by seed."""
    if metric not in METRICS:
        raise ValueError(f"a metric must be one of {', '.join(METRICS)}, got {metric!r}")
    if metric == "val_loss" and outcome.winner is not None:
        values = [outcome.monitor.objective(value) for value in outcome.winner.val_loss]
        return dict(zip(outcome.winner.seeds, values, strict=True))
    if outcome.winner is None or outcome.test is None:
        raise ValueError(f"the arm {outcome.arm.name} has no test scores")
    values = outcome.test.acc if metric == "test_acc" else outcome.test.loss
    return dict(zip(outcome.winner.seeds, values, strict=True))


def contrasts(arms: Mapping[str, ArmEvidence], missing: tuple[str, ...] = ()) -> tuple[Comparison, ...]:
    """Every planned contrast of each measure, p-values adjusted measure by measure (Holm 1979).

    The family of a measure are the contrasts of the arms that have it: a model without BatchNorm has no variance
    shift, and is no failed attempt to show one. Pairs of which one number is not finite are left out. `missing` is
    luck that seeds do not vary.
    """
    names = dict.fromkeys(name for arm in arms.values() for name in arm.measures)
    return tuple(comparison for name in names for comparison in contrasts_of(_having(arms, name), name, missing))


def _having(arms: Mapping[str, ArmEvidence], name: str) -> dict[str, dict[int, float]]:
    """Return the number by seed of each arm that has it."""
    known = {arm: dict(zip(found.seeds, found.measures.get(name, ()), strict=False)) for arm, found in arms.items()}
    return {arm: values for arm, values in known.items() if any(map(math.isfinite, values.values()))}
