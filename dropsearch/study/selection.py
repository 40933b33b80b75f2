"""Selection of the configurations to confirm, their seeds, and the winner."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from dropsearch.core.records import Arm, Confirmed, TrialResult
from dropsearch.study.search_space import Space
from dropsearch.study.trial_entry import TrialKey


def best_configurations(trials: Sequence[TrialResult], count: int) -> tuple[TrialResult, ...]:
    """Return the `count` completed trials with the least validation loss, best first."""
    complete = [t for t in trials if t.state == "COMPLETE" and t.best is not None]
    return tuple(sorted(complete, key=lambda trial: trial.objective)[:count])


def retraining_count(top_k: int, seeds: int, screening: int) -> int:
    """Return the number of retrainings of an arm's confirmation if none fails; see `planned_retrainings`."""
    return top_k * seeds if top_k < 2 else top_k * min(screening, seeds) + max(seeds - screening, 0)


def retrained_at_once(top_k: int, seeds: int, screening: int) -> int:
    """Return how many retrainings of an arm can train at the same time: those of the screening, or the rest."""
    return seeds if top_k < 2 else max(top_k * min(screening, seeds), seeds - screening)


def planned_retrainings(
    configurations: Sequence[TrialResult], retrained: Sequence[TrialResult], seeds: Sequence[int], screening: int
) -> tuple[TrialKey, ...]:
    """Return the retrainings (configuration, seed) that the results so far require, including finished ones.

    Every configuration is first retrained on the first seeds (screening); the one with the lowest mean validation loss
    is then retrained on all seeds. If one of its retrainings fails, the next best one follows. Arms are compared on all
    seeds of their finalists. Their number does not depend on results, so the tests stay exact.

    Args:
        screening: Number of seeds for every configuration.
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
    """Return the finished retrainings of each configuration in the order of the seeds."""
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

    Returns None if no configuration has a finite loss on every seed.
    """
    whole = [c for c in confirmed if len(c.results) == seeds and math.isfinite(c.mean_val_loss)]
    return min(whole, key=lambda c: c.mean_val_loss, default=None)


def candidates(
    space: Space, confirmed: Mapping[str, Sequence[Confirmed]], arms: Mapping[str, Arm]
) -> tuple[Confirmed, ...]:
    """Return the candidates of an arm: its own confirmed configurations, and those of other arms that belong to it.

    Arms are nested: a configuration with all rates zero is one without dropout, one with equal rates has a shared rate.
    Those of other arms need no training, since every arm is confirmed on the same seeds. If two arms choose the same
    model, no difference between them can be found. An arm without own ones, whose trials all failed or were pruned, has
    chosen nothing, so it has no candidates.

    Args:
        confirmed: Confirmed configurations by arm, of arms that build the same module apart from dropout and BatchNorm.
    """
    arm = space.arm
    if not confirmed.get(arm.name):
        return ()
    others = [
        dataclasses.replace(each, owner=name, results=tuple(_with_rates(result, space) for result in each.results))
        for name, found in confirmed.items()
        if name != arm.name and arms[name].batchnorm == arm.batchnorm
        for each in found
        if space.holds(each.results[0].spec.rates)
    ]
    return (*confirmed.get(arm.name, ()), *others)


def _with_rates(result: TrialResult, space: Space) -> TrialResult:
    """Return a retraining with a rate for each site of the given arm."""
    if space.arm.dropout == "off":
        return result
    return dataclasses.replace(
        result, spec=dataclasses.replace(result.spec, rates={**dict.fromkeys(space.sites, 0.0), **result.spec.rates})
    )
