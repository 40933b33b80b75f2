"""Feeds of retrainings: of the best configurations on fresh seeds, and of the winner with a change."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from dropsearch.core.records import TrialResult, TrialSpec
from dropsearch.study.feeds import StudyFeed, may_succeed
from dropsearch.study.retrainings import Variations
from dropsearch.study.search_space import Params, Space
from dropsearch.study.store import StudyStore
from dropsearch.study.trial_entry import TrialKey


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
