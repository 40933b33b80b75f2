"""Comparisons of arms, paired by seed, and when a difference is shown."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from dropsearch.core.records import ArmEvidence, ArmOutcome, Comparison, ComparisonMetric, Interval
from dropsearch.stats.intervals import crossed_difference
from dropsearch.stats.paired_tests import holm, paired_difference, superiority, wilcoxon_exact

ORDER = ("none", "typical", "dropout_shared", "dropout", "batchnorm", "both")
"""All arms in the order in which they are subtracted: a contrast is the later arm minus the earlier one."""
UNSCORED = "seeds without a score"
"""The luck that a contrast leaves out if a seed of one of its arms has no finite score."""
T = TypeVar("T")
ByExample = Mapping[int, Sequence[float]]
"""One number for each test example, by seed."""


def planned_contrasts(arms: Collection[str]) -> list[tuple[str, str]]:
    """Return all pairs of the arms that ran, which are the contrasts fixed before any result is seen."""
    ran = [name for name in ORDER if name in arms]
    return [(later, earlier) for earlier, later in itertools.combinations(ran, 2)]


def contrasts_of(
    values: Mapping[str, Mapping[int, float]], metric: str, missing: tuple[str, ...] = ()
) -> tuple[Comparison, ...]:
    """Return every planned contrast of a number, with p-values adjusted for all of them.

    The contrasts of an arm without finite values stay in the family with p = 1 and an interval of NaN, so that a
    diverged arm does not make other contrasts easier to show. Arms to which the number does not apply must be left out.

    Args:
        missing: Sources of variation that seeds do not cover.
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
    """Return contrasts, the first of each pair of names minus the second, with p-values adjusted for all pairs.

    Args:
        examples: The number by seed for each test example, by name. If both names of a pair have it, interval and p
            cover seeds and examples.
        required: Examples that interval and p must cover in addition to seeds; added to `missing` of pairs without
            results by example.
    """
    found = [_contrast(a, b, values, metric, examples, required) for a, b in contrasts]
    found = [dataclasses.replace(each, missing=(*missing, *each.missing)) for each in found]
    adjusted = holm([comparison.p for comparison in found])
    return tuple(dataclasses.replace(each, p_holm=p) for each, p in zip(found, adjusted, strict=True))


def _contrast(
    a: str,
    b: str,
    values: Mapping[str, Mapping[int, float]],
    metric: str,
    examples: Mapping[str, ByExample],
    required: str,
) -> Comparison:
    """Return the contrast of two names on the seeds on which both have a finite value."""
    shared = [seed for seed in values[a] if seed in values[b]]
    seeds = [seed for seed in shared if math.isfinite(values[a][seed]) and math.isfinite(values[b][seed])]
    first, second = ([values[name][seed] for seed in seeds] for name in (a, b))
    differences = tuple(one - other for one, other in zip(first, second, strict=True))
    difference, p = paired_difference(first, second), wilcoxon_exact(differences)
    missing = (UNSCORED,) if required and len(seeds) < len(shared) else ()
    found = Comparison(a, b, metric, differences, difference, p, p, superiority(first, second), missing=missing)
    if not math.isfinite(difference.low):
        return found
    crossed = _by_example(examples.get(a, {}), examples.get(b, {}), seeds)
    if crossed is None:
        return dataclasses.replace(found, missing=(required, *missing) if required else ())
    over_both, p_both = crossed_difference(crossed)
    return dataclasses.replace(
        found,
        # A difference is shown only if both intervals exclude zero, so their hull is reported.
        difference=Interval(difference.mean, min(difference.low, over_both.low), max(difference.high, over_both.high)),
        p=max(p, p_both),
        over_seeds=difference,
        examples=required or found.examples,
    )


def _by_example(a: ByExample, b: ByExample, seeds: Sequence[int]) -> NDArray[np.float64] | None:
    """Return the differences `[seeds, examples]`; None if one of the two lacks a finite result of a seed."""
    sizes = {len(of.get(seed, ())) for of in (a, b) for seed in seeds}
    if len(seeds) < 2 or len(sizes) > 1 or 0 in sizes:
        return None
    one, other = (np.array([of[seed] for seed in seeds], dtype=np.float64) for of in (a, b))
    differences = one - other
    return differences if np.isfinite(differences).all() else None


def compared(
    arms: Mapping[str, ArmOutcome], metric: ComparisonMetric, *, fixed_luck: tuple[str, ...] = ()
) -> tuple[Comparison, ...]:
    """Return every planned contrast of the comparison metric, adjusted together.

    The scores are test scores, or without a test set the validation scores of the winners' retrainings. `fixed_luck`
    are sources of variation that seeds do not cover (`Summary.fixed_luck`).
    """
    scored = {name: _by_seed(arm, arm.scores(metric)) for name, arm in arms.items()}
    if not any(scored.values()):
        return ()
    examples = {name: _by_seed(arm, _examples(arm, metric)) for name, arm in arms.items()}
    required = "validation examples" if metric.scores == "val_loss" else "test examples"
    pairs = planned_contrasts(scored)
    return contrasted(scored, pairs, metric.metric, examples, missing=fixed_luck, required=required)


def _by_seed(outcome: ArmOutcome, values: Sequence[T]) -> dict[int, T]:
    """Return what is known of an arm's winner for each seed; empty if it is not known."""
    return dict(zip(outcome.winner.seeds, values, strict=True)) if outcome.winner and values else {}


def _examples(outcome: ArmOutcome, metric: ComparisonMetric) -> Sequence[Sequence[float]]:
    """Return the scores of the examples for each seed; empty if unknown."""
    if metric.scores == "val_loss":
        return outcome.val_by_example
    if outcome.test is None:
        return ()
    return outcome.test.correct_by_example if metric.scores == "test_acc" else outcome.test.loss_by_example


def contrasts(arms: Mapping[str, ArmEvidence], missing: tuple[str, ...] = ()) -> tuple[Comparison, ...]:
    """Return every planned contrast of each measure, with p-values adjusted for each measure separately (Holm 1979).

    The family of a measure consists of the contrasts of arms to which it applies; a model without BatchNorm, for
    example, has no variance shift. Pairs with a number that is not finite are left out. `missing` are sources of
    variation that seeds do not cover.
    """
    names = dict.fromkeys(name for arm in arms.values() for name in arm.measures)
    return tuple(comparison for name in names for comparison in contrasts_of(_having(arms, name), name, missing))


def _having(arms: Mapping[str, ArmEvidence], name: str) -> dict[str, dict[int, float]]:
    """Return the measure by seed for each arm that has it."""
    known = {arm: dict(zip(found.seeds, found.measures.get(name, ()), strict=False)) for arm, found in arms.items()}
    return {arm: values for arm, values in known.items() if any(map(math.isfinite, values.values()))}


SIGNIFICANT = 0.05
"""A difference is shown only if its p-value after Holm's adjustment is below this."""


def shown_side(found: Comparison) -> Literal[-1, 0, 1]:
    """Return the side of zero on which a difference is shown to lie: -1, 1, or 0 if it is not shown.

    A difference is shown if p after Holm is below 0.05, its interval excludes zero, and `missing` is empty.
    """
    low, high = found.difference.low, found.difference.high
    if found.p_holm < SIGNIFICANT and not found.missing and (low > 0 or high < 0):
        return 1 if low > 0 else -1
    return 0


def p_text(value: float) -> str:
    """Return a p-value with two digits, or more if rounding would move it across the significance level."""
    if value < 0.001:
        return "<0.001"
    texts = (f"{value:.{digits}g}" for digits in range(2, 18))
    return next(text for text in texts if (float(text) < SIGNIFICANT) is (value < SIGNIFICANT))


def minimum_seeds(contrasts: int, level: float = SIGNIFICANT) -> int:
    """Return the minimum number of paired seeds with which one of `contrasts` can be significant after Holm.

    The smallest exact Wilcoxon p with n pairs is 2 / 2^n.

    Raises:
        ValueError: `contrasts` is below 1, or `level` is not in (0, 1).
    """
    if contrasts < 1 or not 0 < level < 1:
        raise ValueError(f"contrasts >= 1 and 0 < level < 1 must hold, got {contrasts} and {level}")
    seeds = 1
    while contrasts * 2.0 ** (1 - seeds) >= level:
        seeds += 1
    return seeds


DRAWS = 4000
"""Number of simulated experiments, with fixed random numbers, so that results are deterministic."""


@cache
def smallest_rank_sum(pairs: int, alpha: float) -> int | None:
    """Return the smallest sum of positive ranks at which a two-sided exact test rejects, or None."""
    most = pairs * (pairs + 1) // 2
    ways = np.zeros(most + 1)
    ways[0] = 1
    for rank in range(1, pairs + 1):
        ways[rank:] += ways[:-rank].copy()
    tail = np.cumsum(ways[::-1])[::-1] / 2.0**pairs
    rejecting = np.flatnonzero(2 * tail <= alpha)
    return int(rejecting[0]) if len(rejecting) else None


@cache
def detectable(pairs: int, contrasts: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """Return the smallest detectable difference, in standard deviations of the paired differences.

    Differences are assumed normal. The level of a contrast is `alpha` divided by `contrasts`, the first step of Holm's
    procedure, so the power with several true differences is at least `power`.

    Returns:
        The difference; infinite if there are too few seeds.
    """
    bound = smallest_rank_sum(pairs, alpha / max(contrasts, 1))
    if bound is None:
        return math.inf
    noise = np.random.default_rng(0).standard_normal((DRAWS, pairs))
    low, high = 0.0, 32.0
    for _ in range(30):
        middle = (low + high) / 2
        shifted = noise + middle
        ranks = np.abs(shifted).argsort(axis=1).argsort(axis=1) + 1
        rejected = ((ranks * (shifted > 0)).sum(axis=1) >= bound).mean()
        low, high = (low, middle) if rejected >= power else (middle, high)
    return high
