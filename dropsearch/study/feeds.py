"""What is trained next: the search's trials, then the confirmation's."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import islice

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from dropsearch.core.errors import RunError
from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.core.seeds import derived_seed, trial_seed
from dropsearch.study.claims import TrialKey
from dropsearch.study.search_space import Params, Space
from dropsearch.study.store import StudyStore, Wish

DIVERGED = "diverged"
"""How the reason of a trial begins whose numbers were not finite: repeated, it ends in the same way."""
ALIKE = 5
"""A run stops when this many first trials of a study all fail for the same reason."""


class StudyFeed(ABC):
    """The trials that fill a study's places, in the order of the places; those that are filled stay as they are.

    Args:
        store: The study.
        space: What the parameters mean.
        places: What trials the study is to have.
        cancelled: Whether to stop now.
        most_at_once: How many trials may be open at once; None for any number.
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
        store.close_abandoned()

    def ask(self, count: int) -> list[TrialSpec]:
        """Begin the next trials: as many as asked for, fewer when every place is taken."""
        begun: list[TrialSpec] = []
        while len(begun) < count and (trial_keys := self._next(count - len(begun))):
            wishes = [Wish(trial_key, self.point(trial_key), self.sampler_seed(trial_key)) for trial_key in trial_keys]
            begun += [self._spec(trial) for trial in self.store.ask(self.distributions, wishes)]
        return begun

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """The parameters of a trial."""
        return self.space.distributions

    def _next(self, count: int) -> list[TrialKey]:
        """Return the first free places; where there are none, a neighbour that died may have left some."""
        self.store.look()
        free = self._free(count)
        if not free:
            self.store.close_abandoned()
            free = self._free(count)
        return free

    def _free(self, count: int) -> list[TrialKey]:
        claims = self.store.claims
        if claims.freed != self._freed:
            self._freed, self._taken = claims.freed, 0
        while self._taken < len(self.trial_keys) and self.trial_keys[self._taken] in claims.holders:
            self._taken += 1
        free = (
            trial_key for trial_key in islice(self.trial_keys, self._taken, None) if trial_key not in claims.holders
        )
        return list(islice(free, count))

    @abstractmethod
    def point(self, trial_key: TrialKey) -> Params:
        """Return the parameters that the trial of a place must have; the sampler proposes the others."""

    def sampler_seed(self, trial_key: TrialKey) -> int:
        """Return the seed of the sampler that proposes what `point` leaves open."""
        return 0

    @abstractmethod
    def seed(self, trial: FrozenTrial) -> int:
        """Return the seed that a trial trains with."""

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

    @abstractmethod
    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Take in epochs; return of each trial whether it is pruned."""

    def release_fallen(self, stands: Callable[[TrialResult], bool]) -> None:
        """Free the places of earlier results that cannot stand: they failed, or their weights are wanted and gone."""
        fallen = [result for result in self.store.results() if not stands(result)]
        if fallen:
            why = {True: "it failed", False: "its checkpoint is gone"}
            self.store.release({result.spec.number: why[result.state == "FAIL"] for result in fallen})

    def tell(self, results: Sequence[TrialResult]) -> None:
        """End trials."""
        self.store.tell(results)

    def cancelled(self) -> bool:
        """Return whether to stop now. Whoever trains asks often, so this is where the study is told that we live."""
        self.store.show_life()
        return self._cancelled()


class SearchFeed(StudyFeed):
    """The trials of one arm's search, up to a total that counts what earlier runs did.

    Args:
        store: The arm's study.
        space: What is searched.
        total: How many trials the study is to have.
        seed: The seed that the trials' own seeds derive from.
        cancelled: Whether to stop now.
        most_at_once: How many trials may be open at once; None for any number.
        timeout: Seconds from the first `ask` after which no further trial begins; None for no limit.
    """

    def __init__(
        self,
        store: StudyStore,
        space: Space,
        *,
        total: int,
        seed: int,
        cancelled: Callable[[], bool],
        most_at_once: int | None = None,
        timeout: float | None = None,
    ) -> None:
        super().__init__(store, space, [(index,) for index in range(total)], cancelled, most_at_once)
        self._seed, self._timeout = seed, timeout
        self._began: float | None = None
        self._hopeless: RunError | None = None
        self._healthy: set[str] = set()
        """Open trials that ended an epoch with a finite score: of many at once, those that diverge end first."""

    def ask(self, count: int) -> list[TrialSpec]:
        """Begin the next trials: as many as asked for, fewer when the study has its total or its time is over.

        Raises:
            RunError: The first trials of the study all failed alike.
        """
        if self._hopeless:
            raise self._hopeless
        self._began = time.monotonic() if self._began is None else self._began
        if self._timeout is not None and time.monotonic() - self._began > self._timeout:
            return []
        return super().ask(count)

    def point(self, trial_key: TrialKey) -> Params:
        """Return what an interrupted trial of this place had, else one of the space's first points, else nothing."""
        first = dict(enumerate(self.space.first_points))
        return self.store.left(trial_key) or first.get(trial_key[0], {})

    def sampler_seed(self, trial_key: TrialKey) -> int:
        """Return a seed for each place, so that a study that was continued goes on as if it had not stopped."""
        return derived_seed(self._seed, "sampler", *trial_key)

    def seed(self, trial: FrozenTrial) -> int:
        """Return a seed that is the same for the same place of every arm, so that arms pair up."""
        return trial_seed(self._seed, trial.user_attrs["index"])

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Report epochs; return of each trial whether it is pruned."""
        self._healthy |= {spec.key for spec, metrics in reports if math.isfinite(metrics.objective)}
        return self.store.report(reports)

    def tell(self, results: Sequence[TrialResult]) -> None:
        """End trials; where all have failed alike, the next `ask` says so."""
        super().tell(results)
        self._healthy -= {result.spec.key for result in results}
        if not self._healthy and self.store.all_failed:
            self._hopeless = failed_alike(self.store.results())


class ConfirmFeed(StudyFeed):
    """The best configurations of one arm on fresh seeds.

    Args:
        store: The study of the arm's confirmation.
        space: What the search proposed its parameters from.
        configurations: The search's trials to retrain.
        seeds: The seeds, the same for every configuration and arm.
        cancelled: Whether to stop now.
        stands: Says whether an earlier result can stand, for instance because its checkpoint is there.
    """

    def __init__(
        self,
        store: StudyStore,
        space: Space,
        configurations: Sequence[TrialResult],
        seeds: Sequence[int],
        *,
        cancelled: Callable[[], bool],
        stands: Callable[[TrialResult], bool],
    ) -> None:
        self._params = {result.spec.number: dict(result.spec.params) for result in configurations}
        self._tried: set[TrialKey] = set()
        """What failed in this run: it is tried once more, and again by the next run."""
        super().__init__(store, space, [(n, seed) for n in self._params for seed in seeds], cancelled, None)
        self.release_fallen(lambda result: not _may_succeed(result) and stands(result))

    def point(self, trial_key: TrialKey) -> Params:
        """Return the parameters of the configuration."""
        return self._params[trial_key[0]]

    def seed(self, trial: FrozenTrial) -> int:
        """Return the seed of the trial's place."""
        return trial.user_attrs["seed"]

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Take in epochs; a confirmation is never pruned."""
        return [False for _ in reports]

    def tell(self, results: Sequence[TrialResult]) -> None:
        """End retrainings; the place of one that failed is free once more."""
        super().tell(results)
        failed = {(r.spec.configuration or 0, r.spec.seed): r for r in results if _may_succeed(r)}
        again = {result.spec.number: "it failed" for key, result in failed.items() if key not in self._tried}
        self._tried |= failed.keys()
        if again:
            self.store.release(again)


def _may_succeed(result: TrialResult) -> bool:
    """Return whether a failed retraining may end otherwise when it is repeated: not where the numbers diverged."""
    return result.state == "FAIL" and not result.interrupted and not result.reason.startswith(DIVERGED)


def failed_alike(results: Sequence[TrialResult]) -> RunError | None:
    """Return what to say where nothing but the same failure has come of the first `ALIKE` trials or more."""
    if len(results) < ALIKE or any(result.state != "FAIL" for result in results):
        return None
    if len({result.reason.split(":")[0] for result in results}) > 1:
        return None
    arm = results[0].spec.arm
    return RunError(f"the first {len(results)} trials of arm {arm} all failed alike ({results[0].reason})")
