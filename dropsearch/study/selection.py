"""Which configurations are confirmed, and what came of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dropsearch.core.records import Confirmed, TrialResult


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
            gathered.append(Confirmed(number, results))
    return tuple(gathered)


def winner(confirmed: Sequence[Confirmed], seeds: int) -> Confirmed | None:
    """Return the configuration with the least mean validation loss among those retrained on all seeds.

    None where no configuration was retrained on every seed with a finite loss.
    """
    whole = [c for c in confirmed if len(c.results) == seeds and math.isfinite(c.mean_val_loss)]
    return min(whole, key=lambda c: c.mean_val_loss, default=None)
