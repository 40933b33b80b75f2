"""The feed of variations of an arm's winner, retrained with the seeds of its confirmation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.study.claims import TrialKey
from dropsearch.study.feeds import StudyFeed, release_invalid
from dropsearch.study.retrainings import Variations
from dropsearch.study.search_space import Params, Space
from dropsearch.study.store import StudyStore


class VariationFeed(StudyFeed):
    """Hands out each variation of an arm's winner with each seed.

    Args:
        store: The study.
        space: Search space of the arm.
        variations: The variations to retrain.
        seeds: Seeds of the confirmation.
        cancelled: Returns whether to stop now.
        stands: Returns whether an earlier result is still valid, for example whether its checkpoint exists.
    """

    def __init__(
        self,
        store: StudyStore,
        space: Space,
        variations: Variations,
        seeds: Sequence[int],
        *,
        cancelled: Callable[[], bool],
        stands: Callable[[TrialResult], bool] = lambda result: True,
    ) -> None:
        self._variations = variations
        super().__init__(store, space, trial_keys(variations, seeds), cancelled, None)
        release_invalid(store, stands)

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """No distributions, since nothing is sampled."""
        return {}

    def point(self, trial_key: TrialKey) -> Params:
        """Return no parameters."""
        return {}

    def seed(self, trial: FrozenTrial) -> int:
        """Return the seed of the trial's key."""
        return trial.user_attrs["seed"]

    def _spec(self, trial: FrozenTrial) -> TrialSpec:
        varied = self._variations[trial.user_attrs["variation"]]
        return dataclasses.replace(
            varied, arm=self.store.arm, number=trial.number, seed=self.seed(trial), params={}, phase=self.store.phase
        )

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Return False for each trial: retrainings are never pruned."""
        return [False for _ in reports]


def trial_keys(variations: Variations, seeds: Sequence[int]) -> list[TrialKey]:
    """Return the keys of all trials of a study of variations: (configuration, variation, seed)."""
    return [(int(varied.configuration or 0), number, seed) for number, varied in variations.items() for seed in seeds]
