"""The winner of an arm with something changed, retrained on the seeds that confirmed it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from optuna.distributions import BaseDistribution
from optuna.trial import Trial

from dropsearch.records import EpochMetrics, TrialSpec
from dropsearch.search.feeds import StudyFeed
from dropsearch.search.ledger import Ledger, Place
from dropsearch.search.space import Params, Space

Variations = Mapping[str, TrialSpec]
"""By name, the winner's specification with something changed."""


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
        ledger: The study.
        space: What the search proposed its parameters from.
        variations: What is retrained.
        seeds: Those of the confirmation.
        cancelled: Whether to stop now.
    """

    def __init__(
        self,
        ledger: Ledger,
        space: Space,
        variations: Variations,
        seeds: Sequence[int],
        *,
        cancelled: Callable[[], bool],
    ) -> None:
        self._variations = list(variations.values())
        super().__init__(ledger, space, places(variations, seeds), cancelled, None)

    @property
    def distributions(self) -> Mapping[str, BaseDistribution]:
        """Nothing: all is given."""
        return {}

    def point(self, place: Place) -> Params:
        """Return no parameters."""
        return {}

    def seed(self, trial: Trial) -> int:
        """Return the seed of the trial's place."""
        return trial.user_attrs["seed"]

    def _spec(self, trial: Trial) -> TrialSpec:
        varied = self._variations[trial.user_attrs["variation"]]
        return dataclasses.replace(
            varied, number=trial.number, seed=self.seed(trial), params={}, purpose=self.ledger.purpose
        )

    def report(self, spec: TrialSpec, metrics: EpochMetrics) -> bool:
        """Take in an epoch; a retraining is never pruned."""
        return False


def places(variations: Variations, seeds: Sequence[int]) -> list[Place]:
    """Return what trials a study of these variations is to have: (configuration, variation, seed)."""
    return [
        (int(varied.configuration or 0), index, seed)
        for index, varied in enumerate(variations.values())
        for seed in seeds
    ]
