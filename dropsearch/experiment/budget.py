"""Runs within a budget: the numbers of trials, configurations and seeds, updated from measured durations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from dropsearch.core.errors import InputError
from dropsearch.core.seeds import confirmation_seeds
from dropsearch.experiment.arm_runner import ArmRunner, Watch
from dropsearch.report.progress import Progress
from dropsearch.report.progress.progress import duration
from dropsearch.stats.power import detectable
from dropsearch.study.selection import retraining_count

RESERVE = 0.03
"""Share of a budget kept in reserve."""
ROUNDS = (0.4, 0.75, 1.0)
"""Shares of an arm's trials after which the plan is updated."""
MOST_SEEDS, MOST_TRIALS = 20, 1000
CHUNK = 2
"""Number of seeds to add at a time while time remains."""


@dataclass(frozen=True)
class Allocation:
    """Numbers of trials, configurations and seeds of each arm."""

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
"""Allocations from smallest to largest; eight seeds, the minimum for six contrasts, come before more trials."""


@dataclass(frozen=True)
class Costs:
    """Costs of the parts of a run, in seconds or in trials."""

    arms: int
    search_trial: float
    confirm_trial: float
    model: float = 0.0
    """Cost of testing and measuring a confirmed model."""
    fixed: float = 0.0
    """Cost of parts that occur once, such as the report."""
    screening: int = 4
    """Number of seeds of every configuration; the best one of each arm is retrained on all."""

    def of(self, given: Allocation) -> float:
        """Return the cost of an allocation."""
        return self.search(given.n_trials) + self.after(given.top_k, given.seeds)

    def search(self, n_trials: int) -> float:
        """Return the cost of the searches."""
        return self.arms * n_trials * self.search_trial

    def after(self, top_k: int, seeds: int) -> float:
        """Return the cost after the search."""
        retrained = retraining_count(top_k, seeds, self.screening)
        return self.arms * (retrained * self.confirm_trial + seeds * self.model) + self.fixed


def choose(costs: Costs, available: float) -> Allocation | None:
    """Return the largest affordable allocation, or None.

    It is the highest step of the ladder that fits, plus as many trials as the rest allows.
    """
    fitting = [n for n, each in enumerate(LADDER) if costs.of(each) <= available]
    if not fitting:
        return None
    chosen = LADDER[max(fitting)]
    more = math.floor((available - costs.of(chosen)) / max(costs.arms * costs.search_trial, 1e-12))
    above = LADDER[max(fitting) + 1].n_trials if max(fitting) + 1 < len(LADDER) else MOST_TRIALS
    return replace(chosen, n_trials=min(chosen.n_trials + more, max(above, chosen.n_trials)))


def enough(costs: Costs, available: float, used: float, *, in_time: bool) -> Allocation:
    """Return the allocation of a budget.

    Raises:
        InputError: The budget is too small for the smallest allocation.
    """
    found = choose(costs, available - used)
    if found is not None:
        return found
    least = costs.of(LADDER[0]) + used
    size = duration(1.1 * least) if in_time else f"{math.ceil(least)} trials"
    raise InputError(
        f"budget must be enough for {LADDER[0].n_trials} trials an arm and their confirmation, which take about {size} "
        "here: set a larger one, fewer arms, or fewer epochs"
    )


def in_words(given: Allocation, contrasts: int, spread: float | None = None, unit: str = "") -> str:
    """Return a description of an allocation, with the differences that it detects.

    Args:
        given: The allocation.
        contrasts: Number of planned contrasts.
        spread: The standard deviation of paired differences; None if not known yet.
        unit: Unit of the spread.
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
        arm_runner: The arms; the numbers in their configuration are updated.
        costs: Expected costs of the parts.
        available: The budget in the unit of the costs.
        clock: Returns the seconds since the start of the run; None for a budget of trials.

    Raises:
        InputError: The budget is too small.
    """

    def __init__(
        self, arm_runner: ArmRunner, costs: Costs, available: float, clock: Callable[[], float] | None
    ) -> None:
        self.arm_runner, self.costs, self.clock = arm_runner, costs, clock
        self.available = available * (1 - RESERVE) if clock else available
        used = clock() if clock else 0.0
        # Trials of earlier runs do not count.
        sunk = self._ended() * costs.search_trial if clock else 0.0
        found = enough(costs, self.available + sunk, used, in_time=clock is not None)
        self.allocation = found
        self._set()
        self._before = used - sunk

    @property
    def twice(self) -> Allocation:
        """Return the allocation of twice the budget at current costs, at least the present one."""
        own = self.allocation
        found = choose(self.costs, 2 * self.available - self._before) or own
        return Allocation(max(found.n_trials, own.n_trials), max(found.top_k, own.top_k), max(found.seeds, own.seeds))

    def describe(self, contrasts: int, spread: float | None = None, unit: str = "") -> str:
        """Return a description of the allocation, and of that with twice the budget."""
        more = in_words(self.twice, contrasts, spread, unit)
        return f"{in_words(self.allocation, contrasts, spread, unit)}; twice the budget: {more}"

    def train(self, watch: Watch, progress: Progress) -> None:
        """Search in rounds, then confirm seed by seed, and update the allocation after each."""
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
                # The ratio of confirmation to search durations remains as expected.
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
        """Return the numbers of configurations and seeds that can be confirmed in the remaining time."""
        fitting = [each for each in LADDER if self.costs.after(each.top_k, each.seeds) <= left]
        best = fitting[-1] if fitting else LADDER[0]
        return min(best.top_k, self.allocation.n_trials), best.seeds

    def affords_evidence(self, models: int) -> bool:
        """Return whether there is time to measure a number of models."""
        return self.clock is None or self._now() + 0.8 * models * self.costs.model <= self.available / (1 - RESERVE)

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
