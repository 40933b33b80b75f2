"""Runs within a budget: search and confirmation, for which the allocation is updated from measured durations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from dropsearch.core.seeds import confirmation_seeds
from dropsearch.experiment.allocation import LADDER, MOST_SEEDS, Allocation, Costs, choose, enough, in_words
from dropsearch.experiment.arm_runner import ArmRunner, Watch
from dropsearch.report.progress import Progress
from dropsearch.study.selection import retraining_count

RESERVE = 0.03
"""Share of a budget kept in reserve."""
CHUNK = 2
"""Least number of seeds to add at a time while time remains."""


class BudgetedTraining:
    """Search and confirmation of a run, for as long as its budget allows.

    Args:
        clock: Returns the seconds since the start of the run; None for a budget of trials.
        slowness: Returns how many times as long work takes now as on an idle machine.
        enough_seeds: The minimum number of seeds that can show a difference.
    """

    def __init__(
        self,
        arm_runner: ArmRunner,
        costs: Costs,
        available: float,
        clock: Callable[[], float] | None,
        slowness: Callable[[], float] = lambda: 1.0,
        enough_seeds: int = 8,
    ) -> None:
        self.arm_runner, self.costs, self.clock = arm_runner, costs, clock
        self._slowness, self._enough_seeds, self._measured = slowness, enough_seeds, costs.model
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
                self.costs = self._as_busy(believed.scaled((self._now() - begun) / expected))
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
            seeds, screening = self.allocation.seeds, self.costs.screening
            due = retraining_count(top_k, seeds, screening) - retraining_count(top_k, done, screening)
            expected += believed.confirm(top_k, seeds, done) * wanted / (self.costs.arms * due)
            done = seeds
            if expected:
                self.costs = self._as_busy(believed.scaled((self._now() - begun) / expected))
            more = self._more_seeds(top_k, done)
            if more == done:
                return
            self._set(seeds=more)

    def _more_seeds(self, top_k: int, done: int) -> int:
        """Return to how many seeds the remaining time allows to go on, or halfway there, as speed may change.

        Seeds that can show a difference come before evidence.
        """
        left = self.available - self._now()

        def fits(costs: Costs, seeds: int) -> bool:
            return costs.confirm(top_k, seeds, done) + costs.end(seeds) <= left

        costs = self.costs if fits(self.costs, done) else self.costs.without_evidence
        fitting = [n for n in range(done + 1, MOST_SEEDS + 1) if fits(costs, n)]
        enough = self._enough_seeds
        if done < enough not in fitting and fits(self.costs.without_evidence, enough):
            return enough
        return done + max(math.ceil((fitting[-1] - done) / 2), min(CHUNK, fitting[-1] - done)) if fitting else done

    def _affordable(self, left: float) -> tuple[int, int]:
        """Return the numbers of configurations and seeds that can be confirmed in the remaining time.

        Seeds that can show a difference come before evidence.
        """
        fitting = [each for each in LADDER if self.costs.after(each.top_k, each.seeds) <= left]
        if not fitting or fitting[-1].seeds < self._enough_seeds:
            enough = replace(LADDER[0], seeds=self._enough_seeds)
            if self.costs.without_evidence.after(enough.top_k, enough.seeds) <= left:
                fitting.append(enough)
        best = fitting[-1] if fitting else LADDER[0]
        return min(best.top_k, self.allocation.n_trials), best.seeds

    def affords_evidence(self, models: int) -> bool:
        """Return whether there is time to measure a number of models, and for the report behind it."""
        if self.clock is None:
            return True
        costs = self._as_busy(self.costs)
        return self._now() + 0.8 * models * costs.model + costs.fixed <= self.available / (1 - RESERVE)

    def _as_busy(self, costs: Costs) -> Costs:
        """Return costs on a machine that is about as busy as now and before."""
        found = costs.at((self.costs.slow + self._slowness()) / 2)
        # The machine may have been less busy when a model was measured than a moment later, when `slow` was.
        return replace(found, model=max(found.model, self._measured))

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
