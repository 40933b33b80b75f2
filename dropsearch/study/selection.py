"""Which configurations are confirmed on which seeds, and which of them wins."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from dropsearch.core.records import Arm, Confirmed, TrialResult
from dropsearch.study.claims import TrialKey

EQUAL = 1e-9
"""Rates that differ by less are the same rate."""


def best_configurations(trials: Sequence[TrialResult], count: int) -> tuple[TrialResult, ...]:
    """Return the `count` completed trials with the least validation loss, best first."""
    complete = [t for t in trials if t.state == "COMPLETE" and t.best is not None]
    return tuple(sorted(complete, key=lambda t: t.best.objective if t.best else math.inf)[:count])


def retraining_count(top_k: int, seeds: int, screening: int) -> int:
    """Return how many retrainings the confirmation of an arm takes if none of them fails: see `planned_retrainings`."""
    return top_k * seeds if top_k < 2 else top_k * min(screening, seeds) + max(seeds - screening, 0)


def retrained_at_once(top_k: int, seeds: int, screening: int) -> int:
    """Return how many retrainings of an arm can be open at once: those of the screening, or the rest."""
    return seeds if top_k < 2 else max(top_k * min(screening, seeds), seeds - screening)


def planned_retrainings(
    configurations: Sequence[TrialResult], retrained: Sequence[TrialResult], seeds: Sequence[int], screening: int
) -> tuple[TrialKey, ...]:
    """Return the retrainings, as (configuration, seed), that the results so far call for; those done are among them.

    First every configuration is retrained on the first seeds (the screening), then the one with the least mean
    validation loss there on all seeds. If one of its retrainings fails, the next best follows. Arms are compared on all
    seeds of their finalists, whose number does not depend on any result, so the tests stay exact.

    Args:
        configurations: The configurations to confirm.
        retrained: Retrainings that have ended.
        seeds: Seeds of the confirmation.
        screening: How many seeds every configuration is retrained on.
    """
    first = seeds if len(configurations) == 1 else seeds[:screening]
    planned = {each.spec.number: first for each in configurations}
    screened = confirmed_configurations(configurations, retrained, first)
    if sum(len(each.results) for each in screened) == len(first) * len(configurations):
        whole = {each.number: each for each in confirmed_configurations(configurations, retrained, seeds)}
        finite = (each for each in screened if math.isfinite(each.mean_val_loss))
        for finalist in sorted(finite, key=lambda each: each.mean_val_loss):
            planned[finalist.number] = seeds
            if len(whole[finalist.number].results) < len(seeds) or math.isfinite(whole[finalist.number].mean_val_loss):
                break
    return tuple((number, seed) for number, own in planned.items() for seed in own)


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
