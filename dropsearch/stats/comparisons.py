"""The arms against each other, seed by seed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dropsearch.core.records import ArmEvidence, ArmOutcome, Comparison, ComparisonMetric
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


@dataclass(frozen=True)
class Pairs:
    """What two arms scored on the seeds that both have."""

    a: tuple[float, ...]
    b: tuple[float, ...]
    dropped: int
    """Seeds that both have and that are left out, since one of the two scores is not finite."""

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
    shared = [(first[seed], second[seed]) for seed in first if seed in second]
    finite = [pair for pair in shared if all(map(math.isfinite, pair))]
    return Pairs(
        a=tuple(pair[0] for pair in finite),
        b=tuple(pair[1] for pair in finite),
        dropped=len(shared) - len(finite),
    )


def contrasts_of(values: Mapping[str, Mapping[int, float]], metric: str) -> tuple[Comparison, ...]:
    """Every planned contrast of any number that the arms have, p-values adjusted for all of them.

    An arm that has no finite value stays in the family, and so its contrasts have p = 1 and an interval of NaN: an
    arm that diverged makes no other contrast easier to show. Leave an arm out that cannot have the number at all.

    Args:
        values: By arm, the number by seed.
        metric: The number's name.
    """
    return contrasted(values, planned_contrasts(values), metric)


def contrasted(
    values: Mapping[str, Mapping[int, float]], contrasts: Sequence[tuple[str, str]], metric: str
) -> tuple[Comparison, ...]:
    """The first of each pair of names minus the second, seed by seed, p-values adjusted for all pairs.

    Args:
        values: By name, the number by seed.
        contrasts: Which names are compared.
        metric: The number's name.
    """
    pairs = [_pairs(values[a], values[b]) for a, b in contrasts]
    p_values = [wilcoxon_exact(pair.differences) for pair in pairs]
    return tuple(
        Comparison(
            a, b, metric, pair.differences, paired_difference(pair.a, pair.b), p, adjusted, superiority(pair.a, pair.b)
        )
        for (a, b), pair, p, adjusted in zip(contrasts, pairs, p_values, holm(p_values), strict=True)
    )


def compare(arms: Mapping[str, ArmOutcome], metrics: tuple[str, ...] = ("test_acc",)) -> tuple[Comparison, ...]:
    """Every planned contrast of the arms whose test set was opened, p-values adjusted metric by metric.

    A contrast without a single finite pair stays in the family, with p = 1 and an interval of NaN, and so does
    one whose arm has no winner: an arm that diverged makes no other contrast easier to show.
    """
    if not any(_is_tested(arm) for arm in arms.values()):
        return ()
    return tuple(comparison for metric in metrics for comparison in _family(arms, metric))


def compared(
    arms: Mapping[str, ArmOutcome], comparison_metric: ComparisonMetric, more: Sequence[tuple[str, str]] = ()
) -> tuple[Comparison, ...]:
    """Every planned contrast by what the run's arms are judged by, under its name, and `more`, adjusted together.

    The test scores, or where there is no test set the validation scores of the winners' retrainings.
    """
    found = (
        _family(arms, comparison_metric.scores, more)
        if any(_is_scored(arm, comparison_metric.scores) for arm in arms.values())
        else ()
    )
    return tuple(dataclasses.replace(comparison, metric=comparison_metric.metric) for comparison in found)


def _is_scored(arm: ArmOutcome, metric: str) -> bool:
    return arm.winner is not None if metric == "val_loss" else _is_tested(arm)


def _is_tested(arm: ArmOutcome) -> bool:
    return arm.test is not None and arm.winner is not None


def _family(
    arms: Mapping[str, ArmOutcome], metric: str, more: Sequence[tuple[str, str]] = ()
) -> tuple[Comparison, ...]:
    scored = {name: _scores(arm, metric) if _is_scored(arm, metric) else {} for name, arm in arms.items()}
    return contrasted(scored, [*planned_contrasts(scored), *more], metric)


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


def contrasts(arms: Mapping[str, ArmEvidence]) -> tuple[Comparison, ...]:
    """Every planned contrast of each measure, p-values adjusted measure by measure (Holm 1979).

    The family of a measure are the contrasts of the arms that have it: a model without BatchNorm has no variance
    shift, and is no failed attempt to show one. Pairs of which one number is not finite are left out.
    """
    names = dict.fromkeys(name for arm in arms.values() for name in arm.measures)
    return tuple(comparison for name in names for comparison in contrasts_of(_having(arms, name), name))


def _having(arms: Mapping[str, ArmEvidence], name: str) -> dict[str, dict[int, float]]:
    """Return the number by seed of each arm that has it."""
    known = {arm: dict(zip(found.seeds, found.measures.get(name, ()), strict=False)) for arm, found in arms.items()}
    return {arm: values for arm, values in known.items() if any(map(math.isfinite, values.values()))}
