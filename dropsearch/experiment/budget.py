"""Runs within a budget: the numbers of trials, configurations and seeds, updated from measured durations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

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
"""Least number of seeds to add at a time while time remains."""


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
    rows: int = 1
    """Number of simultaneous trials of the search; costs of trials are those of full rows."""
    confirm_rows: int = 1
    idle: float = 1.0
    """Cost of an empty row relative to that of a full one."""

    def of(self, given: Allocation) -> float:
        """Return the cost of an allocation."""
        return self.search(given.n_trials) + self.after(given.top_k, given.seeds)

    def search(self, n_trials: int, done: int = 0) -> float:
        """Return the cost of the searches, which run in rounds, after the first `done` trials of each arm."""
        ends = [end for end in self.rounds(n_trials) if end > done]
        return self.arms * self.searched([end - begin for begin, end in pairwise([done, *ends])])

    def rounds(self, n_trials: int) -> list[int]:
        """Return after how many trials of each arm the plan is updated: not before all rows have had a trial."""
        return [math.ceil(share * n_trials) for share in ROUNDS if share == 1 or share * n_trials >= self.rows]

    def searched(self, trials: Iterable[int]) -> float:
        """Return the cost of searches of some numbers of trials, one after the other."""
        return self.search_trial * sum(self._full(each, self.rows) for each in trials)

    def confirm(self, top_k: int, seeds: int, done: int = 0) -> float:
        """Return the cost of the confirmation after the first `done` seeds."""
        if top_k < 2:
            parts = [seeds - done]
        else:
            screened, before = min(seeds, self.screening), min(done, self.screening)
            parts = [top_k * (screened - before), seeds - screened - (done - before)]
        return self.arms * self.confirm_trial * sum(self._full(each, self.confirm_rows) for each in parts)

    def end(self, seeds: int) -> float:
        """Return the cost of test, evidence and report."""
        return self.arms * seeds * self.model + self.fixed

    def after(self, top_k: int, seeds: int) -> float:
        """Return the cost after the search."""
        return self.confirm(top_k, seeds) + self.end(seeds)

    def scaled(self, factor: float) -> Costs:
        """Return the costs with those of all trials multiplied by a factor."""
        return replace(self, search_trial=self.search_trial * factor, confirm_trial=self.confirm_trial * factor)

    def _full(self, trials: int, rows: int) -> float:
        """Return how many trials in full rows cost as much as some of which the last leave rows empty."""
        return trials + self.idle * (-trials % rows)


def choose(costs: Costs, available: float, done: int = 0) -> Allocation | None:
    """Return the largest affordable allocation, or None.

    It is the highest step of the ladder that fits, plus as many trials as the rest allows.

    Args:
        costs: What trials and the other parts cost.
        available: The budget for what is left to do.
        done: Number of trials of each arm that have ended.
    """

    def fits(given: Allocation) -> bool:
        return costs.search(given.n_trials, done) + costs.after(given.top_k, given.seeds) <= available

    fitting = [n for n, each in enumerate(LADDER) if fits(each)]
    if not fitting:
        return None
    chosen = LADDER[max(fitting)]
    above = LADDER[max(fitting) + 1].n_trials if max(fitting) + 1 < len(LADDER) else MOST_TRIALS
    more = [replace(chosen, n_trials=n) for n in range(chosen.n_trials, above + 1)]
    return next(each for each in reversed(more) if fits(each))


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
        begun, believed, expected = self._now(), self.costs, 0.0
        target = self.allocation.n_trials
        reached = 0
        while reached < target:
            reached = next(end for end in self.costs.rounds(target) if end > reached)
            self._set(n_trials=reached)
            progress.state.n_trials = target
            progress.train("search", max(self.costs.arms * target - self._ended(), 0), is_search=True)
            expected += believed.searched(
                max(reached - len(arm.search.results()), 0) for arm in self.arm_runner.studies
            )
            self.arm_runner.search(watch)
            if self.arm_runner.cancelled():
                break
            if self.clock and reached < target and expected:
                # The ratio of confirmation to search durations remains as expected.
                self.costs = believed.scaled((self._now() - begun) / expected)
                found = choose(self.costs, self.available - self._now(), reached) or LADDER[0]
                target = max(found.n_trials, reached)
        self._set(n_trials=reached)

    def _confirm(self, watch: Watch, progress: Progress) -> None:
        top_k, seeds = self.allocation.top_k, self.allocation.seeds
        if self.clock:
            top_k, seeds = self._affordable(self.available - self._now())
        planned = self.costs.arms * retraining_count(top_k, seeds, self.costs.screening)
        self._set(top_k=top_k, seeds=min(seeds, max(CHUNK, math.ceil(seeds / 2))) if self.clock else seeds)
        begun, believed, trained, done, expected = self._now(), self.costs, 0, 0, 0.0
        while True:
            wanted = self.arm_runner.retrainings_left()
            progress.train("confirm", max(wanted, planned - trained))
            self.arm_runner.confirm(watch)
            trained += wanted
            if self.arm_runner.cancelled() or self.clock is None:
                return
            seeds, due = self.allocation.seeds, self.costs.screening
            due = retraining_count(top_k, seeds, due) - retraining_count(top_k, done, due)
            expected += believed.confirm(top_k, seeds, done) * wanted / (self.costs.arms * due)
            done = seeds
            if expected:
                self.costs = believed.scaled((self._now() - begun) / expected)
            more = self._more_seeds(top_k, done)
            if more == done:
                return
            self._set(seeds=more)

    def _more_seeds(self, top_k: int, done: int) -> int:
        """Return to how many seeds the remaining time allows to go on, or halfway there, as speed may change."""
        left = self.available - self._now()
        numbers = range(done + 1, MOST_SEEDS + 1)
        fitting = [n for n in numbers if self.costs.confirm(top_k, n, done) + self.costs.end(n) <= left]
        return done + max(math.ceil((fitting[-1] - done) / 2), min(CHUNK, fitting[-1] - done)) if fitting else done

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
