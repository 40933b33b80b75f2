"""What is trained next: the search's trials, then the confirmation's."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from optuna.distributions import BaseDistribution
from optuna.trial import Trial

from dropsearch.core.errors import RunError
from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.core.seeds import derived_seed, trial_seed
from dropsearch.study.search_space import Params, Space
from dropsearch.study.store import StudyStore, TrialKey

ALIKE = 5
"""A run stops when this many first trials of a study all fail for the same reason."""


class StudyFeed(ABC):
    """The trials that fill a study's places, in the order of the places; those that are filled stay as they are.

    Args:
        ledger: The study.
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
        self.cancelled, self.most_at_once = cancelled, most_at_once
        store.close_abandoned()

    def ask(self) -> TrialSpec | None:
        """Begin the next trial, None when every place is taken."""
        while (trial_key := self._next()) is not None:
            trial = self.store.ask(self.distributions, trial_key, self.point(trial_key), self.sampler_seed(trial_key))
            if trial is not None:
                return self._spec(trial)
        return None

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """The parameters of a trial."""
        return self.space.distributions

    def _next(self) -> TrialKey | None:
        """Return the first free place; where there is none, a neighbour that died may have left some."""
        free = self._first_free()
        if free is None and self.store.close_abandoned():
            free = self._first_free()
        return free

    def _first_free(self) -> TrialKey | None:
        taken = self.store.holders
        return next((trial_key for trial_key in self.trial_keys if trial_key not in taken), None)

    @abstractmethod
    def point(self, trial_key: TrialKey) -> Params:
        """Return the parameters that the trial of a place must have; the sampler proposes the others."""

    def sampler_seed(self, trial_key: TrialKey) -> int:
        """Return the seed of the sampler that proposes what `point` leaves open."""
        return 0

    @abstractmethod
    def seed(self, trial: Trial) -> int:
        """Return the seed that a trial trains with."""

    def _spec(self, trial: Trial) -> TrialSpec:
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
    def report(self, spec: TrialSpec, metrics: EpochMetrics) -> bool:
        """Take in an epoch; return whether the trial is pruned."""

    def release_fallen(self, stands: Callable[[TrialResult], bool]) -> None:
        """Free the places of earlier results that cannot stand, for their weights are wanted and gone."""
        for result in self.store.results():
            if not stands(result):
                self.store.release(result.spec.number, "its checkpoint is gone")

    def tell(self, result: TrialResult) -> None:
        """End a trial."""
        self.store.tell(result)


class SearchFeed(StudyFeed):
    """The trials of one arm's search, up to a total that counts what earlier runs did.

    Args:
        ledger: The arm's study.
        space: What is searched.
        total: How many trials the study is to have.
        seed: The seed that the trials' own seeds derive from.
        cancelled: Whether to stop now.
        most_at_once: How many trials may be open at once; None for any number.
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
    ) -> None:
        super().__init__(store, space, [(index,) for index in range(total)], cancelled, most_at_once)
        self._seed = seed
        self._hopeless: RunError | None = None
        self._healthy: set[str] = set()
        """Open trials that ended an epoch with a finite score: of many at once, those that diverge end first."""

    def ask(self) -> TrialSpec | None:
        """Begin the next trial, None when the study has its total.

        Raises:
            RunError: The first trials of the study all failed alike.
        """
        if self._hopeless:
            raise self._hopeless
        return super().ask()

    def point(self, trial_key: TrialKey) -> Params:
        """Return what an interrupted trial of this place had, else one of the space's first points, else nothing."""
        first = dict(enumerate(self.space.first_points))
        return self.store.left(trial_key) or first.get(trial_key[0], {})

    def sampler_seed(self, trial_key: TrialKey) -> int:
        """Return a seed for each place, so that a study that was continued goes on as if it had not stopped."""
        return derived_seed(self._seed, "sampler", *trial_key)

    def seed(self, trial: Trial) -> int:
        """Return a seed that is the same for the same place of every arm, so that arms pair up."""
        return trial_seed(self._seed, trial.user_attrs["index"])

    def report(self, spec: TrialSpec, metrics: EpochMetrics) -> bool:
        """Report an epoch; return whether the trial is pruned."""
        if math.isfinite(metrics.objective):
            self._healthy.add(spec.key)
        return self.store.report(spec, metrics)

    def tell(self, result: TrialResult) -> None:
        """End a trial; where all have failed alike, the next `ask` says so."""
        super().tell(result)
        self._healthy.discard(result.spec.key)
        if result.state == "FAIL" and not self._healthy:
            self._hopeless = failed_alike(self.store.results())


class ConfirmFeed(StudyFeed):
    """The best configurations of one arm on fresh seeds.

    Args:
        ledger: The study of the arm's confirmation.
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
        super().__init__(store, space, [(n, seed) for n in self._params for seed in seeds], cancelled, None)
        self.release_fallen(stands)

    def point(self, trial_key: TrialKey) -> Params:
        """Return the parameters of the configuration."""
        return self._params[trial_key[0]]

    def seed(self, trial: Trial) -> int:
        """Return the seed of the trial's place."""
        return trial.user_attrs["seed"]

    def report(self, spec: TrialSpec, metrics: EpochMetrics) -> bool:
        """Take in an epoch; a confirmation is never pruned."""
        return False


def failed_alike(results: Sequence[TrialResult]) -> RunError | None:
    """Return what to say where nothing but the same failure has come of the first `ALIKE` trials or more."""
    if len(results) < ALIKE or any(result.state != "FAIL" for result in results):
        return None
    if len({result.reason.split(":")[0] for result in results}) > 1:
        return None
    arm = results[0].spec.arm
    return RunError(f"the first {len(results)} trials of arm {arm} all failed alike ({results[0].reason})")
