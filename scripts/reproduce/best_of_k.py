"""`best_of_k.py RESULTS FIGURE`: the validation accuracy to expect of the best of k random trials, by arm.

The estimate is unbiased: the mean of the best over all subsets of k of the n trials, from their order statistics.
Intervals are percentile bootstraps that draw trials by their number, together in all arms, for trials of one number
have one learning rate and weight decay in every arm. Trials 0 and 1 are left out: some arms do not draw them. A trial
that diverged counts as chance, as it does in the publication.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dropsearch.report.palette import look
from dropsearch.report.sheet import drawing, key, label_outer, sheet

PUBLISHED = {
    "none": {1: 91.96, 5: 98.39, 10: 98.49, 20: 98.56},
    "textbook": {1: 66.23, 5: 97.70, 10: 98.51, 20: 98.65},
    "batchnorm": {1: 98.08, 5: 98.47, 10: 98.55, 20: 98.60},
}
"""Test accuracy, %, computed from the raw runs of Garbin et al. (2020); their dropout has fixed rates."""
BUDGETS = (1, 5, 10, 20)
CHANCE = 0.1
NOT_DRAWN = 2
"""How many trials at the beginning are points of the search's choice, in at least one arm."""
RESAMPLES = 4000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """What k trials come to in an arm, %, and its 95 % interval."""

    expected: float
    low: float
    high: float
    resamples: Floats
    """[resamples]; of all arms the same trials, so that they can be subtracted."""

    def __str__(self) -> str:
        return f"{self.expected:.2f} ({self.low:.2f} to {self.high:.2f})"


def accuracies(arm: Mapping[str, Any]) -> Floats:
    """Return the validation accuracy [trials] of each trial that was drawn, %, in the order of their numbers."""
    drawn = sorted((t for t in arm["trials"] if t["number"] >= NOT_DRAWN), key=lambda t: t["number"])
    return 100 * np.array([t["val_acc"] if t["state"] == "COMPLETE" else CHANCE for t in drawn])


def weights(trials: int, k: int) -> Floats:
    """Return how often each of n ranks, from the least, is the best among all subsets of k, as a share [trials]."""
    return np.array([math.comb(rank, k - 1) for rank in range(trials)], dtype=np.float64) / math.comb(trials, k)


def estimate(values: Floats, draws: NDArray[np.int64], k: int) -> Estimate:
    """Return what the best of k of `values` [trials] is expected to be; `draws` [resamples, trials]."""
    share = weights(len(values), k)
    resamples = np.sort(values[draws], axis=1) @ share
    low, high = np.quantile(resamples, [0.025, 0.975])
    return Estimate(float(np.sort(values) @ share), float(low), float(high), resamples)


def gain(one: Estimate, other: Estimate) -> str:
    """Return a difference with its 95 % interval, in points."""
    low, high = np.quantile(one.resamples - other.resamples, [0.025, 0.975])
    return f"{one.expected - other.expected:+.2f} ({low:+.2f} to {high:+.2f})"


def table(found: Mapping[str, Mapping[int, Estimate]]) -> str:
    """Return the table of all arms and of their distances from none, as Markdown."""
    heads = [f"best of {k}" for k in BUDGETS]
    lines = ["| arm | " + " | ".join(heads) + " |", "| :-- |" + " --: |" * len(heads)]
    for arm, by_k in found.items():
        lines.append(f"| {arm} | " + " | ".join(str(by_k[k]) for k in BUDGETS) + " |")
        if arm in PUBLISHED:
            lines.append("| - published | " + " | ".join(f"{PUBLISHED[arm][k]:.2f}" for k in BUDGETS) + " |")
    for arm in [arm for arm in found if arm != "none"]:
        differences = [gain(found[arm][k], found["none"][k]) for k in BUDGETS]
        lines.append(f"| {arm} minus none | " + " | ".join(differences) + " |")
    return "\n".join(lines)


def draw(values: Mapping[str, Floats], draws: NDArray[np.int64], path: Path) -> None:
    """Draw what is to be expected of k trials in each arm, with its band."""
    budgets = range(1, max(BUDGETS) + 1)
    caption = (
        f"Expected best validation accuracy of k random trials, from {draws.shape[1]} trials an arm; bands: 95 % "
        "intervals (bootstrap). A trial that diverged counts as 10 %."
    )
    with drawing():
        drawn = sheet(
            "The winner by budget: MNIST, MLP 784-256-256-10", caption, 1, [key(a) for a in values], panel_height=3
        )
        panel = drawn.panels[0]
        for arm, accuracy in values.items():
            found = [estimate(accuracy, draws, k) for k in budgets]
            colour = look(arm).colour
            # The distance from 100 % on a logarithmic axis: the arms meet in tenths of a point.
            panel.plot(
                budgets, [100 - e.expected for e in found], look(arm).line, color=colour, marker=look(arm).marker
            )
            panel.fill_between(
                budgets,
                [100 - e.high for e in found],
                [100 - e.low for e in found],
                color=colour,
                alpha=0.15,
                linewidth=0,
            )
        panel.set_yscale("log")
        panel.set_yticks(ticks := (2, 3, 5, 10, 20, 40), [f"{tick} %" for tick in ticks])
        panel.minorticks_off()
        panel.set_xticks(BUDGETS)
        label_outer(drawn, "trials k", "error of the best of k (%)")
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.save(path)


def main(results: str, figure: str) -> None:
    """Print the table and draw the figure."""
    run = json.loads(Path(results).read_text())
    values = {name: accuracies(arm) for name, arm in run["arms"].items()}
    trials = min(map(len, values.values()))
    values = {name: accuracy[:trials] for name, accuracy in values.items()}
    draws = np.random.default_rng(0).integers(trials, size=(RESAMPLES, trials))
    seconds = f"{run['seconds']:.0f} s"
    print(f"validation accuracy, %, of the best of k, from {trials} random trials an arm (95 % interval); {seconds}\n")
    print(table({name: {k: estimate(a, draws, k) for k in BUDGETS} for name, a in values.items()}))
    print("\n" + diverged(values))
    draw(values, draws, Path(figure))


def diverged(values: Mapping[str, Floats]) -> str:
    """Return how many trials of each arm came to nothing."""
    counts = {name: int((accuracy <= 100 * CHANCE + 2).sum()) for name, accuracy in values.items()}
    return "at chance: " + ", ".join(f"{name} {count}" for name, count in counts.items())


def arguments(given: Sequence[str]) -> tuple[str, str]:
    """Return the two paths."""
    if len(given) != 2:
        raise SystemExit(__doc__)
    return given[0], given[1]


if __name__ == "__main__":
    main(*arguments(sys.argv[1:]))
