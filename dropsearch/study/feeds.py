"""Feeds: they hand out the trials that a study lacks, also failed ones again, and record results in it."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from dropsearch.core.errors import RunError
from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.study.proposals import Wish
from dropsearch.study.retrainings import Variations
from dropsearch.study.search_space import Params, Space
from dropsearch.study.store import StudyStore
from dropsearch.study.trial_entry import TrialKey

DIVERGED = "diverged"
"""Prefix of the reason of a trial with non-finite metrics; repeating such a trial gives the same result."""
MIN_FAILURES = 5
"""A run stops if the first trials of a study, at least this many, all fail for the same reason."""


class StudyFeed(ABC):
    """Hands out the trials that a study still lacks, in the order of their keys.

    Args:
        most_at_once: Maximum number of open trials; None for no limit.
    """

    def __init__(
        self,
        store: StudyStore,
        space: Space,
        trial_keys: Sequence[TrialKey],
        cancelled: Callable[[], bool],
        most_at_once: int | None,
    ) -> None:
        self.store, self.space, self.trial_keys = store, space, trial_keys
        self._cancelled, self.most_at_once = cancelled, most_at_once
        self._taken, self._freed = 0, 0
        self._was_alone = False
        self.held = False
        """Whether the last `ask` returned fewer trials than available, until other trials progress."""
        self._close_abandoned()

    def ask(self, count: int) -> list[TrialSpec]:
        """Start up to `count` trials and return them; fewer if all trials of the study are done or running."""
        suspect, self.held = self._suspect(), False
        if suspect is not None or self._was_alone:
            return self._ask_alone(suspect)
        return self._begin(count, lambda missing: self._next(missing))

    def _suspect(self) -> TrialKey | None:
        """Return the first free key of a trial that may have crashed its process."""
        holders, known = self.store.claims.holders, set(self.trial_keys) if self.store.suspects else set()
        return min((key for key in self.store.suspects if key in known and key not in holders), default=None)

    def _ask_alone(self, suspect: TrialKey | None) -> list[TrialSpec]:
        # The engine ends between suspects and after the last one, so that its width does not stay at one row.
        if suspect is None or self._was_alone or self.store.is_training:
            self.held, self._was_alone = True, self.store.is_training
            return []
        self._was_alone = True
        self.store.suspects.discard(suspect)
        return self._begin(1, lambda _: [suspect] if suspect not in self.store.claims.holders else [])

    def _begin(self, count: int, free: Callable[[int], list[TrialKey]]) -> list[TrialSpec]:
        specs: list[TrialSpec] = []
        while len(specs) < count and (trial_keys := free(count - len(specs))):
            wishes = [
                Wish(key, self.point(key), self.sampler_seed(key), frozenset(self.unknown(key))) for key in trial_keys
            ]
            specs += [self._spec(trial) for trial in self.store.ask(self.distributions, wishes)]
        return specs

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """Distributions of a trial's parameters."""
        return self.space.distributions

    def _next(self, count: int) -> list[TrialKey]:
        """Return free trial keys. If there are none, first free those of processes that have died."""
        self.store.look()
        free = self._free(count)
        if not free and not self.held:
            self._close_abandoned()
            free = self._free(count)
        return free

    def _close_abandoned(self) -> None:
        self.store.close_abandoned(lambda trial, reason: TrialResult(self._spec(trial), "FAIL", (), 0.0, reason))

    def _free(self, count: int) -> list[TrialKey]:
        claims = self.store.claims
        if claims.freed != self._freed:
            self._freed, self._taken = claims.freed, 0
        while self._taken < len(self.trial_keys) and self.trial_keys[self._taken] in claims.holders:
            self._taken += 1
        free = (key for key in islice(self.trial_keys, self._taken, None) if key not in claims.holders)
        return list(islice(free, count))

    @abstractmethod
    def point(self, trial_key: TrialKey) -> Params:
        """Return the fixed parameters of a trial; the sampler proposes the others."""

    def sampler_seed(self, trial_key: TrialKey) -> int:
        """Return the sampler's seed for the parameters that `point` does not fix."""
        return 0

    def unknown(self, trial_key: TrialKey) -> Iterable[int]:
        """Return the numbers of the trials whose results the sampler and the pruner must not use for this one."""
        return ()

    def seed(self, trial: FrozenTrial) -> int:
        """Return the training seed of a trial: that of its key."""
        return trial.user_attrs["seed"]

    def _spec(self, trial: FrozenTrial) -> TrialSpec:
        params = trial.params
        return TrialSpec(
            arm=self.store.arm,
            number=trial.number,
            seed=self.seed(trial),
            rates=self.space.rates(params),
            lr=params.get("lr", math.nan),
            weight_decay=params.get("weight_decay", math.nan),
            params=params,
            phase=self.store.phase,
            configuration=trial.user_attrs.get("configuration"),
            repeat=self.store.repeat,
            hyperparameters=self.space.hyperparameters(params),
        )

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Record epoch metrics; return for each trial whether it is to be pruned: retrainings never are."""
        return [False for _ in reports]

    def tell(self, results: Sequence[TrialResult]) -> None:
        """Record the results of trials."""
        self.store.tell(results)

    def cancelled(self) -> bool:
        """Return whether to stop now. Engines call this often, so it also updates the heartbeat of the study."""
        self.store.show_life()
        return self._cancelled()


def release_invalid(store: StudyStore, is_valid: Callable[[TrialResult], bool]) -> None:
    """Free the keys of trials whose results are no longer valid: they failed, or their checkpoints are missing."""
    invalid = [result for result in store.results() if not is_valid(result)]
    if invalid:
        reasons = {True: "it failed", False: "its checkpoint is missing"}
        store.release({result.spec.number: reasons[result.state == "FAIL"] for result in invalid})


def may_succeed(result: TrialResult) -> bool:
    """Return whether repeating a failed trial may succeed; a diverged trial diverges again."""
    return result.state == "FAIL" and not result.interrupted and not result.reason.startswith(DIVERGED)


def common_failure(results: Sequence[TrialResult]) -> RunError | None:
    """Return an error if there are `MIN_FAILURES` results or more and all failed for the same reason, else None."""
    reasons = {result.reason.split(":")[0] for result in results}
    if len(results) < MIN_FAILURES or len(reasons) > 1 or any(result.state != "FAIL" for result in results):
        return None
    arm = results[0].spec.arm
    return RunError(f"the first {len(results)} trials of arm {arm} all failed for the same reason: {results[0].reason}")


class ConfirmFeed(StudyFeed):
    """Hands out retrainings of an arm's best configurations on fresh seeds.

    Args:
        trial_keys: The retrainings wanted, as (configuration, seed); the same seeds in every arm.
    """

    def __init__(
        self,
        store: StudyStore,
        space: Space,
        configurations: Sequence[TrialResult],
        trial_keys: Sequence[TrialKey],
        *,
        cancelled: Callable[[], bool],
    ) -> None:
        self._params = {result.spec.number: dict(result.spec.params) for result in configurations}
        self._tried: set[TrialKey] = set()
        """Keys of retrainings that failed in this run; each is tried once more now, and again by the next run."""
        super().__init__(store, space, trial_keys, cancelled, None)

    def point(self, trial_key: TrialKey) -> Params:
        """Return the parameters of the configuration."""
        return self._params[trial_key[0]]

    def tell(self, results: Sequence[TrialResult]) -> None:
        """Record results; the key of a failed retraining becomes free once."""
        super().tell(results)
        failed = {(r.spec.configuration or 0, r.spec.seed): r for r in results if may_succeed(r)}
        again = {result.spec.number: "it failed" for key, result in failed.items() if key not in self._tried}
        self._tried |= failed.keys()
        if again:
            self.store.release(again)


class VariationFeed(StudyFeed):
    """Hands out each variation of an arm's winner with each seed."""

    def __init__(
        self,
        store: StudyStore,
        space: Space,
        variations: Variations,
        seeds: Sequence[int],
        *,
        cancelled: Callable[[], bool],
    ) -> None:
        self._variations = variations
        super().__init__(store, space, trial_keys(variations, seeds), cancelled, None)

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """No distributions, since nothing is sampled."""
        return {}

    def point(self, trial_key: TrialKey) -> Params:
        """Return no parameters."""
        return {}

    def _spec(self, trial: FrozenTrial) -> TrialSpec:
        varied = self._variations[trial.user_attrs["variation"]]
        return dataclasses.replace(
            varied, arm=self.store.arm, number=trial.number, seed=self.seed(trial), params={}, phase=self.store.phase
        )


def trial_keys(variations: Variations, seeds: Sequence[int]) -> list[TrialKey]:
    """Return the keys of all trials of a study of variations: (configuration, variation, seed)."""
    return [(int(varied.configuration or 0), number, seed) for number, varied in variations.items() for seed in seeds]
