"""The arms against each other in what was measured on their winners, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from dropsearch.evidence.compare import planned_contrasts
from dropsearch.evidence.intervals import paired_difference
from dropsearch.evidence.significance import holm, wilcoxon_exact
from dropsearch.records import ArmEvidence, Comparison


def contrasts(arms: Mapping[str, ArmEvidence]) -> tuple[Comparison, ...]:
    """Every planned contrast of each measure, p-values adjusted measure by measure (Holm 1979).

    The family of a measure are the contrasts of the arms that have it: a model without BatchNorm has no variance
    shift, and is no failed attempt to show one. Pairs of which one number is not finite are left out.
    """
    names = dict.fromkeys(name for arm in arms.values() for name in arm.measures)
    return tuple(comparison for name in names for comparison in _family(arms, name))


def _family(arms: Mapping[str, ArmEvidence], name: str) -> Iterator[Comparison]:
    values = {arm: _by_seed(evidence, name) for arm, evidence in arms.items()}
    planned = planned_contrasts(arm for arm, found in values.items() if found)
    pairs = [[(values[a][seed], values[b][seed]) for seed in values[a] if seed in values[b]] for a, b in planned]
    differences = [tuple(one - other for one, other in pair) for pair in pairs]
    p_values = [wilcoxon_exact(difference) for difference in differences]
    for (a, b), pair, difference, p, adjusted in zip(
        planned, pairs, differences, p_values, holm(p_values), strict=True
    ):
        interval = paired_difference([one for one, _ in pair], [other for _, other in pair])
        yield Comparison(a, b, name, difference, interval, p, adjusted)


def _by_seed(evidence: ArmEvidence, name: str) -> dict[int, float]:
    known = evidence.measures.get(name, ())
    return {seed: value for seed, value in zip(evidence.seeds, known, strict=False) if math.isfinite(value)}
