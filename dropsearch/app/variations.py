"""Retrainings of the winners with something changed, on request: which single sites matter."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from dropsearch.app.ablation import ArmStudies
from dropsearch.evidence.compare import contrasted
from dropsearch.records import ArmOutcome, Confirmed, TrialResult, Variation
from dropsearch.search.variations import VariationFeed, Variations, places, single_sites


def variations_of(winner: Confirmed | None) -> Variations:
    """Return the variations of an arm's winner; none of a winner that drops nothing anywhere."""
    if winner is None or not any(winner.results[0].spec.rates.values()):
        return {}
    return single_sites(winner.results[0].spec)


def feed(arm: ArmStudies, winner: Confirmed | None, cancelled: Callable[[], bool]) -> VariationFeed:
    """Return the retrainings of an arm's winner."""
    assert arm.sites is not None, "opened where they are asked for"
    seeds = winner.seeds if winner else ()
    return VariationFeed(arm.sites, arm.space, variations_of(winner), seeds, cancelled=cancelled)


def missing(arm: ArmStudies, winner: Confirmed | None) -> int:
    """Return how many retrainings are not done yet."""
    if arm.sites is None or winner is None:
        return 0
    found = arm.sites.holders
    return sum(place not in found for place in places(variations_of(winner), winner.seeds))


def varied(arm: ArmStudies, outcome: ArmOutcome) -> tuple[Variation, ...]:
    """Return what came of the retrainings of an arm's winner, each against the winner on the same seeds."""
    winner = outcome.winner
    if arm.sites is None or winner is None:
        return ()
    specs = variations_of(winner)
    results = {(r.spec.configuration, r.spec.variation, r.spec.seed): r for r in arm.sites.results()}
    chosen = {name: [results.get((winner.number, name, seed)) for seed in winner.seeds] for name in specs}
    scores = {name: _scores(outcome, [r for r in found if r is not None]) for name, found in chosen.items()}
    pairs = [(name, arm.arm.name) for name in specs]
    own = {arm.arm.name: _scores(outcome, winner.results)}
    found = contrasted({**scores, **own}, pairs, outcome.monitor.name)
    return tuple(
        Variation(
            comparison.a,
            specs[comparison.a].rates,
            tuple(scores[comparison.a].get(seed, math.nan) for seed in winner.seeds),
            comparison,
        )
        for comparison in found
    )


def _scores(outcome: ArmOutcome, results: Sequence[TrialResult]) -> dict[int, float]:
    """Return the best of what is monitored by seed; not finite where a retraining failed."""
    known = Confirmed(0, tuple(results))
    return {seed: outcome.monitor.objective(value) for seed, value in zip(known.seeds, known.val_loss, strict=True)}
