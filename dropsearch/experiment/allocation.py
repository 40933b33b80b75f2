"""What a budget buys: numbers of trials, configurations and seeds, from the costs of a run's parts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

from dropsearch.core.errors import InputError
from dropsearch.experiment.paces import TEST_SHARE
from dropsearch.report.progress.view import duration
from dropsearch.report.text.phrases import counted
from dropsearch.stats.comparisons import detectable

ROUNDS = (0.4, 0.75, 1.0)
"""Shares of an arm's trials after which the plan is updated."""
MOST_SEEDS, MOST_TRIALS = 20, 1000


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
    slow: float = 1.0
    """By what a busy machine multiplied `model` and `fixed`."""

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

    def at(self, slow: float) -> Costs:
        """Return the costs with those after the confirmation as on a machine that is as busy as `slow` says."""
        factor = slow / self.slow
        return replace(self, model=self.model * factor, fixed=self.fixed * factor, slow=slow)

    @property
    def without_evidence(self) -> Costs:
        """The costs of a run that tests its models and measures nothing else."""
        return replace(self, model=self.model * TEST_SHARE / (1 + TEST_SHARE))

    def _full(self, trials: int, rows: int) -> float:
        """Return how many trials in full rows cost as much as some of which the last leave rows empty."""
        return trials + self.idle * (-trials % rows)


def choose(costs: Costs, available: float, done: int = 0) -> Allocation | None:
    """Return the largest affordable allocation, or None.

    It is the highest step of the ladder that fits, plus as many trials as the rest allows.

    Args:
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
        spread: The standard deviation of paired differences; None if not known yet.
    """
    bought = f"{counted(given.n_trials, 'trial')} an arm, the best {given.top_k} on {counted(given.seeds, 'seed')}"
    least = detectable(given.seeds, contrasts)
    if math.isinf(least):
        return f"{bought}; so few seeds detect no difference"
    size = f"{least:.1f} times the spread between seeds" if spread is None else f"{least * spread:.2g} {unit}".rstrip()
    return f"{bought}; differences of {size} or more are detected with 80 % power"
