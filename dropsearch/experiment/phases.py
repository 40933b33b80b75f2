"""The training phases of a run or a worker, with the retrainings of winners registered in `RETRAININGS`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from dropsearch.core.records import ARMS, ArmOutcome, Confirmed, TrialPhase, TrialResult, TrialSpec, Variation
from dropsearch.experiment.arm_runner import ArmRunner, Watch
from dropsearch.experiment.studies import ArmStudies
from dropsearch.stats.comparisons import contrasted
from dropsearch.study.feeds import VariationFeed, trial_keys
from dropsearch.study.retrainings import RETRAININGS, Variations


@dataclass(frozen=True)
class Phase:
    """A phase of a study, which is complete before the next one starts."""

    name: str
    is_search: bool
    """Whether a sampler proposes its trials, whose weights are not kept."""
    left: Callable[[], int]
    """Returns the number of missing trials."""
    train: Callable[[Watch], None]
    is_budgeted: bool = False
    """Whether a budget limits its training."""


def phases(arm_runner: ArmRunner) -> list[Phase]:
    """Return the phases of a study in their order."""
    asked: list[TrialPhase] = [each for each in RETRAININGS if any(each in arm.retrained for arm in arm_runner.studies)]
    varied = [
        Phase(
            RETRAININGS[each].title, False, partial(count_left, arm_runner, each), partial(vary, arm_runner, phase=each)
        )
        for each in asked
    ]
    repeats = [
        Phase(
            f"repeat {number}", True, partial(arm_runner.trials_left, number), partial(arm_runner.repeat, number=number)
        )
        for number in range(2, arm_runner.context.config.study.repeats + 1)
    ]
    search = Phase("search", True, arm_runner.trials_left, arm_runner.search, is_budgeted=True)
    confirm = Phase("confirm", False, arm_runner.retrainings_left, arm_runner.confirm, is_budgeted=True)
    return [search, confirm, *varied, *repeats]


OTHER_ARMS = 1_000_000
"""Offset of configuration numbers of other arms, above an arm's own numbers."""


def variations_of(phase: TrialPhase, winner: Confirmed | None) -> Variations:
    """Return the variations of an arm's winner; none if all its rates are 0."""
    if winner is None or not winner.drops:
        return {}
    spec = winner.results[0].spec
    if winner.owner:  # numbers of other arms may collide
        spec = dataclasses.replace(
            spec, configuration=winner.number + OTHER_ARMS * (1 + list(ARMS).index(winner.owner))
        )
    return dict(enumerate(RETRAININGS[phase].of(spec).values()))


def vary(arm_runner: ArmRunner, watch: Watch, phase: TrialPhase) -> None:
    """Retrain the winners of all arms that have a study for it."""

    def feed(arm: ArmStudies, winner: Confirmed | None) -> VariationFeed:
        seeds, changed = winner.seeds if winner else (), variations_of(phase, winner)
        return VariationFeed(arm.retrained[phase], arm.space, changed, seeds, cancelled=arm_runner.cancelled)

    arm_runner.vary(watch, phase, feed)


def missing(arm: ArmStudies, winner: Confirmed | None) -> str:
    """Return a message about missing requested retrainings; empty if there are none."""
    for phase in arm.retrained:
        if count := _left(arm, winner, phase):
            return f"{count} {RETRAININGS[phase].missing} are missing in arm {arm.arm.name}"
    return ""


def count_left(arm_runner: ArmRunner, phase: TrialPhase) -> int:
    """Return the number of missing retrainings of all arms."""
    return sum(_left(arm, arm_runner.winner(arm), phase) for arm in arm_runner.studies if phase in arm.retrained)


def _left(arm: ArmStudies, winner: Confirmed | None, phase: TrialPhase) -> int:
    wanted = trial_keys(variations_of(phase, winner), winner.seeds) if winner else []
    return len({*wanted} - {*arm.retrained[phase].holders})


def retrained(
    arm: ArmStudies, winner: Confirmed, phase: TrialPhase
) -> dict[str, tuple[TrialSpec, tuple[TrialResult, ...]]]:
    """Return the finished retrainings of each variation of an arm's winner, by name."""
    results = {(r.spec.configuration, r.spec.variation, r.spec.seed): r for r in arm.retrained[phase].results()}
    found = {}
    for spec in variations_of(phase, winner).values():
        name = spec.variation
        keys = [(spec.configuration, name, seed) for seed in winner.seeds]
        found[name] = spec, tuple(results[key] for key in keys if key in results)
    return found


def varied(
    arm: ArmStudies, outcome: ArmOutcome, phase: TrialPhase, fixed_luck: tuple[str, ...] = ()
) -> tuple[Variation, ...]:
    """Return the variations of an arm's winner, each compared with the winner on the same seeds.

    `fixed_luck` are sources of variation that seeds do not cover.
    """
    winner = outcome.winner
    if phase not in arm.retrained or winner is None:
        return ()
    done = retrained(arm, winner, phase)
    scores = {name: _scores(outcome, results) for name, (_, results) in done.items()}
    pairs = [(name, arm.arm.name) for name in done]
    own = {arm.arm.name: _scores(outcome, winner.results)}
    found = contrasted({**scores, **own}, pairs, outcome.monitor.name, missing=fixed_luck)
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
    """Return the best monitored value by seed; not finite for a failed retraining."""
    known = Confirmed(0, tuple(results))
    return {seed: outcome.monitor.objective(value) for seed, value in zip(known.seeds, known.val_loss, strict=True)}
