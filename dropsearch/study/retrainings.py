"""The winner of an arm with something changed, retrained on the seeds that confirmed it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.study.claims import TrialKey
from dropsearch.study.feeds import StudyFeed
from dropsearch.study.search_space import Params, Space
from dropsearch.study.store import StudyStore

Variations = Mapping[int, TrialSpec]
"""By a number that is its own in its study, the winner's specification with something changed."""


def single_sites(winner: TrialSpec) -> dict[str, TrialSpec]:
    """Return the winner with the rate of one site at zero, and at the mean of the other sites' rates, for each site.

    What would change nothing is left out: zero where the rate is zero already, the mean of no others, or one that
    is the rate itself.
    """
    found: dict[str, dict[str, float]] = {}
    for site, rate in winner.rates.items():
        others = [other for name, other in winner.rates.items() if name != site]
        mean = sum(others) / len(others) if others else rate
        found |= {f"{site} = 0": {site: 0.0}, f"{site} = mean": {site: mean}}
    changed = {name: {**winner.rates, **change} for name, change in found.items()}
    return {
        name: dataclasses.replace(winner, rates=rates, variation=name)
        for name, rates in changed.items()
        if any(abs(rates[site] - rate) > 1e-6 for site, rate in winner.rates.items())
    }


class VariationFeed(StudyFeed):
    """Each variation of one arm's winner on each of its seeds.

    Args:
        store: The study.
        space: What the search proposed its parameters from.
        variations: What is retrained.
        seeds: Those of the confirmation.
        cancelled: Whether to stop now.
        stands: Says whether an earlier result can stand, for instance because its checkpoint is there.
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
        self.release_fallen(stands)

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """Nothing: all is given."""
        return {}

    def point(self, trial_key: TrialKey) -> Params:
        """Return no parameters."""
        return {}

    def seed(self, trial: FrozenTrial) -> int:
        """Return the seed of the trial's place."""
        return trial.user_attrs["seed"]

    def _spec(self, trial: FrozenTrial) -> TrialSpec:
        varied = self._variations[trial.user_attrs["variation"]]
        return dataclasses.replace(
            varied, arm=self.store.arm, number=trial.number, seed=self.seed(trial), params={}, phase=self.store.phase
        )

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Take in epochs; a retraining is never pruned."""
        return [False for _ in reports]


def trial_keys(variations: Variations, seeds: Sequence[int]) -> list[TrialKey]:
    """Return what trials a study of these variations is to have: (configuration, variation, seed)."""
    return [(int(varied.configuration or 0), number, seed) for number, varied in variations.items() for seed in seeds]
