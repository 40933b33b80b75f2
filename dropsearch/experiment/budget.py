"""A run within a budget: how many trials, configurations and seeds it buys, decided anew as the run learns."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from dropsearch.core.errors import InputError
from dropsearch.core.records import ArmOutcome, ComparisonMetric
from dropsearch.core.seeds import confirmation_seeds
from dropsearch.experiment.arm_runner import ArmRunner, Watch
from dropsearch.report.progress import Progress
from dropsearch.report.progress.progress import duration
from dropsearch.stats.power import detectable
from dropsearch.study.selection import retraining_count

RESERVE = 0.03
"""The share of a budget that is left unplanned."""
ROUNDS = (0.4, 0.75, 1.0)
"""The shares of an arm's trials after which the plan is made anew."""
MOST_SEEDS, MOST_TRIALS = 20, 1000
CHUNK = 2
"""Seeds that are added at a time, while there is time left."""


@dataclass(frozen=True)
class Allocation:
    """What each arm gets."""

    n_trials: int
    top_k: int
    seeds: int


LADDER = tuple(
    Allocation(*each)
    for each in (
        (2, 1, 1),
        (3, 1, 2),
        (5, 1, 3),
        (8, 1, 5),
        (10, 1, 8),
        (15, 1, 8),
        (20, 2, 8),
        (25, 2, 10),
        (30, 3, 10),
        (45, 3, 10),
        (60, 3, 12),
        (90, 3, 15),
        (120, 3, 20),
        (200, 5, 20),
    )
)
"""From the smallest to the largest: eight seeds, with which six contrasts can be shown, come before many trials."""


@dataclass(frozen=True)
class Costs:
    """What the parts of a run cost, in seconds, or in trials."""

    arms: int
    search_trial: float
    confirm_trial: float
    model: float = 0.0
    """To test a confirmed model and to look at it."""
    fixed: float = 0.0
    """For what comes once, such as the report."""
    screening: int = 4
    """On how many seeds every configuration is retrained; the best one of each arm is retrained on all."""

    def of(self, given: Allocation) -> float:
        """Return what an allocation costs."""
        return self.search(given.n_trials) + self.after(given.top_k, given.seeds)

    def search(self, n_trials: int) -> float:
        """Return what the searches cost."""
        return self.arms * n_trials * self.search_trial

    def after(self, top_k: int, seeds: int) -> float:
        """Return what comes after the search."""
        retrained = retraining_count(top_k, seeds, self.screening)
        return self.arms * (retrained * self.confirm_trial + seeds * self.model) + self.fixed


def choose(costs: Costs, available: float) -> Allocation | None:
    """Return the most that can be had; None where not even the least can.

    The highest step of the ladder that fits, and as many more trials as the rest buys.
    """
    fitting = [n for n, each in enumerate(LADDER) if costs.of(each) <= available]
    if not fitting:
        return None
    chosen = LADDER[max(fitting)]
    more = math.floor((available - costs.of(chosen)) / max(costs.arms * costs.search_trial, 1e-12))
    above = LADDER[max(fitting) + 1].n_trials if max(fitting) + 1 < len(LADDER) else MOST_TRIALS
    return replace(chosen, n_trials=min(chosen.n_trials + more, max(above, chosen.n_trials)))


def enough(costs: Costs, available: float, used: float, *, in_time: bool) -> Allocation:
    """Return what a budget buys.

    Raises:
        InputError: Not even the least.
    """
    found = choose(costs, available - used)
    if found is not None:
        return found
    least = costs.of(LADDER[0]) + used
    size = duration(1.1 * least) if in_time else f"{math.ceil(least)} trials"
    raise InputError(
        f"budget must be enough for {LADDER[0].n_trials} trials an arm and their confirmation, which take about {size} "
        "here: give a larger one, fewer arms, or fewer epochs"
    )


def in_words(given: Allocation, contrasts: int, spread: float | None = None, unit: str = "") -> str:
    """Return what an allocation is, and which differences it detects.

    Args:
        given: The allocation.
        contrasts: How many are planned.
        spread: The standard deviation of paired differences; None if not known yet.
        unit: Of the spread.
    """
    bought = f"{given.n_trials} trials an arm, the best {given.top_k} on {given.seeds} seeds"
    least = detectable(given.seeds, contrasts)
    if math.isinf(least):
        return f"{bought}; so few seeds detect no difference"
    size = f"{least:.1f} times the spread between seeds" if spread is None else f"{least * spread:.2g} {unit}".rstrip()
    return f"{bought}; differences of {size} or more are detected with 80 % power"


class BudgetedTraining:
    """Search and confirmation of a run, for as long as its budget allows.

    Args:
        arm_runner: The arms; the numbers in their configuration are set as they are decided.
        costs: What the parts cost, as far as it is known beforehand.
        available: The budget, in the unit of the costs.
        clock: Seconds since the run began; None where trials are counted, and nothing is learnt about them.

    Raises:
        InputError: The budget is too small.
    """

    def __init__(
        self, arm_runner: ArmRunner, costs: Costs, available: float, clock: Callable[[], float] | None
    ) -> None:
        self.arm_runner, self.costs, self.clock = arm_runner, costs, clock
        self.available = available * (1 - RESERVE) if clock else available
        used = clock() if clock else 0.0
        # What an earlier run ended is not paid again.
        sunk = self._ended() * costs.search_trial if clock else 0.0
        found = enough(costs, self.available + sunk, used, in_time=clock is not None)
        self.allocation = found
        self._set()
        self._before = used - sunk

    @property
    def twice(self) -> Allocation:
        """What twice the budget would buy by what is known now: no less than this one did."""
        own = self.allocation
        found = choose(self.costs, 2 * self.available - self._before) or own
        return Allocation(max(found.n_trials, own.n_trials), max(found.top_k, own.top_k), max(found.seeds, own.seeds))

    def describe(self, contrasts: int, spread: float | None = None, unit: str = "") -> str:
        """Return what the budget buys, and what twice as much would."""
        more = in_words(self.twice, contrasts, spread, unit)
        return f"{in_words(self.allocation, contrasts, spread, unit)}; twice the budget: {more}"

    def train(self, watch: Watch, progress: Progress) -> None:
        """Search in rounds, then confirm seed by seed, and decide anew after each."""
        self._search(watch, progress)
        if not self.arm_runner.cancelled():
            self._confirm(watch, progress)

    def _search(self, watch: Watch, progress: Progress) -> None:
        begun, already = self._now(), self._ended()
        target = self.allocation.n_trials
        reached = 0
        for part in ROUNDS:
            reached = max(reached, min(math.ceil(part * target), target))
            self._set(n_trials=reached)
            progress.state.n_trials = target
            progress.train("search", max(self.costs.arms * target - self._ended(), 0), is_search=True)
            self.arm_runner.search(watch)
            trained = self._ended() - already
            if self.arm_runner.cancelled() or reached >= target:
                break
            if self.clock and trained:
                each = (self._now() - begun) / trained
                # A confirmation takes as much longer as it was expected to.
                scale = each / self.costs.search_trial
                self.costs = replace(self.costs, search_trial=each, confirm_trial=self.costs.confirm_trial * scale)
                left = self.available - self._now() + self.costs.search(reached)
                target = max((choose(self.costs, left) or LADDER[0]).n_trials, reached)
        self._set(n_trials=reached)

    def _confirm(self, watch: Watch, progress: Progress) -> None:
        top_k, seeds = self.allocation.top_k, self.allocation.seeds
        if self.clock:
            top_k, seeds = self._affordable(self.available - self._now())
        self._set(top_k=top_k, seeds=min(seeds, max(CHUNK, math.ceil(seeds / 2))) if self.clock else seeds)
        begun, trained = self._now(), 0
        planned = self.costs.arms * retraining_count(top_k, seeds, self.costs.screening)
        while True:
            wanted = self.arm_runner.retrainings_left()
            progress.train("confirm", max(wanted, planned - trained))
            self.arm_runner.confirm(watch)
            trained += wanted
            if self.arm_runner.cancelled() or self.clock is None:
                return
            if trained:
                self.costs = replace(self.costs, confirm_trial=(self._now() - begun) / trained)
            done = self.allocation.seeds
            more = min(done + CHUNK, MOST_SEEDS)
            step = self.costs.after(top_k, more) - self.costs.after(top_k, done)
            rest = self.costs.after(0, done)
            if more == done or self._now() + step + rest > self.available:
                return
            self._set(seeds=more)

    def _affordable(self, left: float) -> tuple[int, int]:
        """Return how many configurations and seeds can be confirmed in the time that is left."""
        fitting = [each for each in LADDER if self.costs.after(each.top_k, each.seeds) <= left]
        best = fitting[-1] if fitting else LADDER[0]
        return min(best.top_k, self.allocation.n_trials), best.seeds

    def affords_evidence(self, looks: float) -> bool:
        """Return whether there is time to look at the models, in seconds."""
        return self.clock is None or self._now() + 0.8 * looks <= self.available / (1 - RESERVE)

    def _set(self, **numbers: int) -> None:
        self.allocation = replace(self.allocation, **numbers)
        config = self.arm_runner.context.config
        config.study.n_trials = self.allocation.n_trials
        config.confirm.top_k, config.confirm.seeds = self.allocation.top_k, self.allocation.seeds
        self.arm_runner.seeds = confirmation_seeds(config.seed, self.allocation.seeds)

    def _now(self) -> float:
        return self.clock() if self.clock else 0.0

    def _ended(self) -> int:
        return sum(len(arm.search.results()) for arm in self.arm_runner.studies)


def spread_between_seeds(arms: Mapping[str, ArmOutcome], metric: ComparisonMetric) -> float | None:
    """Return the median standard deviation of paired differences between arms, in the metric; None if unknown."""
    scores = []
    for outcome in arms.values():
        if outcome.winner is None:
            continue
        if metric.scores == "test_acc" and outcome.test:
            scores.append(dict(zip(outcome.winner.seeds, outcome.test.acc, strict=True)))
        elif metric.scores == "test_loss" and outcome.test:
            scores.append(dict(zip(outcome.winner.seeds, outcome.test.loss, strict=True)))
        elif metric.scores == "val_loss":
            scores.append(dict(zip(outcome.winner.seeds, outcome.winner.val_loss, strict=True)))
    found = []
    for index, one in enumerate(scores):
        for other in scores[index + 1 :]:
            differences = [one[seed] - other[seed] for seed in one if seed in other]
            finite = [each for each in differences if math.isfinite(each)]
            if len(finite) > 1:
                found.append(statistics.stdev(finite))
    known = [each for each in found if each > 0]
    return statistics.median(known) if known else None
