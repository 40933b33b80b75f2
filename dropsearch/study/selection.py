"""Which configurations are confirmed, and what came of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from dropsearch.core.records import Arm, Confirmed, TrialResult

EQUAL = 1e-9
"""Rates that differ by less are the same rate."""


def best_configurations(trials: Sequence[TrialResult], count: int) -> tuple[TrialResult, ...]:
    """Return the `count` completed trials with the least validation loss, best first."""
    complete = [t for t in trials if t.state == "COMPLETE" and t.best is not None]
    return tuple(sorted(complete, key=lambda t: t.best.objective if t.best else math.inf)[:count])


def confirmed_configurations(
    configurations: Sequence[TrialResult], retrained: Sequence[TrialResult], seeds: Sequence[int]
) -> tuple[Confirmed, ...]:
    """Gather the retrainings of each configuration in the order of the seeds; those not done are left out."""
    latest = {(r.spec.configuration, r.spec.seed): r for r in retrained}
    gathered = []
    for configuration in configurations:
        number = configuration.spec.number
        results = tuple(latest[number, seed] for seed in seeds if (number, seed) in latest)
        if results:
            gathered.append(Confirmed(number, results, trial=configuration))
    return tuple(gathered)


def winner(confirmed: Sequence[Confirmed], seeds: int) -> Confirmed | None:
    """Return the configuration with the least mean validation loss among those retrained on all seeds.

    None where no configuration was retrained on every seed with a finite loss.
    """
    whole = [c for c in confirmed if len(c.results) == seeds and math.isfinite(c.mean_val_loss)]
    return min(whole, key=lambda c: c.mean_val_loss, default=None)


def is_in_arm(arm: Arm, rates: Mapping[str, float], typical: Mapping[str, float]) -> bool:
    """Return whether a configuration with these rates is one that an arm with the same BatchNorm setting can have.

    Arms are nested: with all rates zero it is a configuration without dropout, with equal rates one with a shared rate.

    Args:
        arm: The arm.
        rates: By site; a site that is missing has rate 0.
        typical: The typical rate of each site.
    """
    known = [rates.get(site, 0.0) for site in typical] or list(rates.values())
    if arm.dropout == "off":
        return not any(known)
    if arm.dropout == "shared":
        return max(known, default=0.0) - min(known, default=0.0) < EQUAL
    if arm.dropout == "typical":
        return all(abs(rates.get(site, 0.0) - rate) < EQUAL for site, rate in typical.items())
    return True


def candidates(
    arm: Arm, confirmed: Mapping[str, Sequence[Confirmed]], arms: Mapping[str, Arm], typical: Mapping[str, float]
) -> tuple[Confirmed, ...]:
    """Return what an arm chooses its winner from: its own confirmed configurations, and the same models of other arms.

    Those need no training, since every arm is confirmed on the same seeds. Where two arms choose one model, they are
    the same model, and no difference between them can be found.

    Args:
        arm: The arm that chooses.
        confirmed: By arm, the configurations that were retrained.
        arms: By name, the arms that ran.
        typical: The typical rate of each controllable site.
    """
    others = [
        dataclasses.replace(
            each, owner=name, results=tuple(_with_rates(result, arm, typical) for result in each.results)
        )
        for name, found in confirmed.items()
        if name != arm.name and arms[name].batchnorm == arm.batchnorm
        for each in found
        if is_in_arm(arm, each.results[0].spec.rates, typical)
    ]
    return (*confirmed.get(arm.name, ()), *others)


def _with_rates(result: TrialResult, arm: Arm, typical: Mapping[str, float]) -> TrialResult:
    """Return a retraining with a rate for each site of the arm that it stands in."""
    if arm.dropout == "off":
        return result
    return dataclasses.replace(
        result, spec=dataclasses.replace(result.spec, rates={**dict.fromkeys(typical, 0.0), **result.spec.rates})
    )
