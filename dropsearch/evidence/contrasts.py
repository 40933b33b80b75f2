"""The arms against each other in what was measured on their winners, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dropsearch.evidence.compare import contrasts_of
from dropsearch.records import ArmEvidence, Comparison


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
