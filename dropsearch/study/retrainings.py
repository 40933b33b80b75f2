"""Registry of retrainings of winners beyond the confirmation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dropsearch.core.records import TrialPhase, TrialSpec

Variations = Mapping[int, TrialSpec]
"""Changed specifications of a winner, by a number that is unique in its study."""


def single_sites(winner: TrialSpec) -> dict[str, TrialSpec]:
    """Return for each site the winner with its rate set to zero, and to the mean rate of the other sites.

    Variations that change no rate are left out.
    """
    changes: dict[str, dict[str, float]] = {}
    for site, rate in winner.rates.items():
        others = [other for name, other in winner.rates.items() if name != site]
        mean = sum(others) / len(others) if others else rate
        changes |= {f"{site} = 0": {site: 0.0}, f"{site} = mean": {site: mean}}
    changed = {name: {**winner.rates, **change} for name, change in changes.items()}
    return {
        name: dataclasses.replace(winner, rates=rates)
        for name, rates in changed.items()
        if any(abs(rates[site] - rate) > 1e-6 for site, rate in winner.rates.items())
    }


@dataclass(frozen=True)
class Retraining:
    """Retrainings of a winner with something changed."""

    change: Callable[[TrialSpec], Mapping[str, TrialSpec]]
    """Returns the variations of a winner by name."""
    study: str
    """Suffix of the study's name, after the arm's name."""
    title: str
    """Title in the progress bar, in results.json and above their table."""
    summary: str
    """What is retrained, for the first lines of a run."""
    missing: str
    """Description in messages."""
    asked_by: str
    """Key of `evidence` that enables them."""
    most: Callable[[int], int]
    """Returns the maximum number of variations for a number of sites."""

    def of(self, winner: TrialSpec) -> dict[str, TrialSpec]:
        """Return the variations of a winner by name, each marked with its name."""
        return {name: dataclasses.replace(spec, variation=name) for name, spec in self.change(winner).items()}


RETRAININGS: Mapping[TrialPhase, Retraining] = {
    "sites": Retraining(
        single_sites,
        study="evidence/single_sites",
        title="single sites",
        summary="each winner that drops, one rate at a time at zero and at the mean of the others",
        missing="retrainings with the rate of one site changed",
        asked_by="single_sites",
        most=lambda sites: 2 * sites,
    )
}
"""All retrainings. To add one, write its change in a new file and list it here. Reports show it."""
