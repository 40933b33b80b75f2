"""Retrainings of the winners with something changed, on request: single sites, or L2 in place of dropout."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from dropsearch.core.records import (
    ARMS,
    ArmOutcome,
    Confirmed,
    EpochMetrics,
    TrialPhase,
    TrialResult,
    TrialSpec,
    Variation,
)
from dropsearch.experiment.arm_runner import ArmRunner, ArmStudies, Watch
from dropsearch.experiment.arm_runner import Variations as VariationFeeds
from dropsearch.stats.comparisons import contrasted
from dropsearch.study.retrainings import (
    WEIGHT_DECAYS,
    VariationFeed,
    Variations,
    l2_controls,
    single_sites,
    train_sizes,
    trial_keys,
)
from dropsearch.training.protocols import Engine

CHANGES: Mapping[TrialPhase, Callable[[TrialSpec], Mapping[str, TrialSpec]]] = {
    "sites": single_sites,
    "l2": l2_controls,
}
"""What is changed, by what the retraining is for."""
WITH_WEIGHTS: tuple[TrialPhase, ...] = ("confirm", "l2")
"""The retrainings whose models are looked at, so that their weights are kept."""
PHASES: Mapping[TrialPhase, str] = {"sites": "single sites", "l2": "L2 control", "sizes": "training sizes"}
"""What the progress bar calls them."""
MISSING: Mapping[TrialPhase, str] = {
    "sites": "retrainings with the rate of one site changed",
    "l2": "retrainings with weight decay in place of dropout",
    "sizes": "retrainings on a part of the training set",
}

FOREIGN = 1_000_000
"""Above the numbers of an arm's own configurations: here those of other arms begin."""

Number = Callable[[EpochMetrics], float]
"""What is read off one point of a curve."""


def variations_of(phase: TrialPhase, winner: Confirmed | None, sizes: Sequence[int]) -> Variations:
    """Return the variations of an arm's winner; of one that drops nothing anywhere only those of the training set."""
    if winner is None:
        return {}
    spec = winner.results[0].spec
    if winner.owner:  # two arms may each have a configuration of this number
        spec = dataclasses.replace(spec, configuration=winner.number + FOREIGN * (1 + list(ARMS).index(winner.owner)))
    if phase == "sizes":
        return train_sizes(spec, sizes)
    return dict(enumerate(CHANGES[phase](spec).values())) if any(spec.rates.values()) else {}


def most(arm: ArmStudies, phase: TrialPhase, sizes: Sequence[int]) -> int:
    """Return how many variations an arm's winner has at most."""
    counts = {"sites": 2 * len(arm.space.sites), "l2": 1 + len(WEIGHT_DECAYS), "sizes": len(sizes)}
    return counts[phase]


def vary(arm_runner: ArmRunner, watch: Watch, phase: TrialPhase, sized: Mapping[int, Engine]) -> None:
    """Retrain the winners of all arms that have a study for it; on a part of the training set by that part's engine."""
    if phase != "sizes":
        arm_runner.vary(watch, phase, feeds(arm_runner, phase, ()), arm_runner.engine)
    for size, engine in sized.items() if phase == "sizes" else ():
        if not arm_runner.cancelled():
            arm_runner.vary(watch, phase, feeds(arm_runner, phase, (size,)), engine)


def feeds(arm_runner: ArmRunner, phase: TrialPhase, sizes: Sequence[int]) -> VariationFeeds:
    """Return what makes the feed of an arm's winner with something changed."""
    stands = arm_runner.stands if phase in WITH_WEIGHTS else _always

    def feed(arm: ArmStudies, winner: Confirmed | None) -> VariationFeed:
        seeds, changed = winner.seeds if winner else (), variations_of(phase, winner, sizes)
        store = arm.retrained[phase]
        return VariationFeed(store, arm.space, changed, seeds, cancelled=arm_runner.cancelled, stands=stands)

    return feed


def _always(result: TrialResult) -> bool:
    return True


def missing(arm: ArmStudies, winner: Confirmed | None, sizes: Sequence[int]) -> str:
    """Return which retrainings that are asked for are not done yet; empty where all are."""
    for phase, store in arm.retrained.items():
        wanted = trial_keys(variations_of(phase, winner, sizes), winner.seeds) if winner else []
        if count := len({*wanted} - {*store.holders}):
            return f"{count} {MISSING[phase]} are missing in arm {arm.arm.name}"
    return ""


def retrained(
    arm: ArmStudies, winner: Confirmed, phase: TrialPhase, sizes: Sequence[int] = ()
) -> dict[str, tuple[TrialSpec, tuple[TrialResult, ...]]]:
    """Return what became of each variation of an arm's winner, by its name; of the seeds, those that are done."""
    results = {(r.spec.configuration, r.spec.variation, r.spec.seed): r for r in arm.retrained[phase].results()}
    found = {}
    for spec in variations_of(phase, winner, sizes).values():
        name = spec.variation
        keys = [(spec.configuration, name, seed) for seed in winner.seeds]
        found[name] = spec, tuple(results[key] for key in keys if key in results)
    return found


def at_best(result: TrialResult | None, number: Number) -> float:
    """Return a number of the epoch whose weights count; NaN of a retraining that is missing or failed."""
    if result is None or result.state != "COMPLETE" or result.best is None:
        return math.nan
    return number(result.best)


def varied(arm: ArmStudies, outcome: ArmOutcome) -> tuple[Variation, ...]:
    """Return what came of the winner with one rate changed, each against the winner on the same seeds."""
    winner = outcome.winner
    if "sites" not in arm.retrained or winner is None:
        return ()
    done = retrained(arm, winner, "sites")
    scores = {name: _scores(outcome, results) for name, (_, results) in done.items()}
    pairs = [(name, arm.arm.name) for name in done]
    own = {arm.arm.name: _scores(outcome, winner.results)}
    found = contrasted({**scores, **own}, pairs, outcome.monitor.name)
    return tuple(
        Variation(
            comparison.a,
            done[comparison.a][0].rates,
            tuple(scores[comparison.a].get(seed, math.nan) for seed in winner.seeds),
            comparison,
        )
        for comparison in found
    )


def _scores(outcome: ArmOutcome, results: Sequence[TrialResult]) -> dict[int, float]:
    """Return the best of what is monitored by seed; not finite where a retraining failed."""
    known = Confirmed(0, tuple(results))
    return {seed: outcome.monitor.objective(value) for seed, value in zip(known.seeds, known.val_loss, strict=True)}
