"""`best_of_k.py RESULTS FIGURE`: the validation accuracy to expect of the best of k random trials, by arm.

The estimate is unbiased: the mean of the best over all subsets of k of the n trials, from their order statistics.
Intervals are Student's on the jackknife's standard error, for an arm of the logarithm of its error, for a difference
paired: trials of one number have one learning rate and weight decay in every arm. At large k, where a few trials count,
they are too short. Trials 0 and 1 are left out: some arms do not draw them. A trial that diverged counts as chance, as
it does in the publication.
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
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.special import stdtrit

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
TICKS = (2, 3, 5, 10, 20, 40, 80)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """What k trials come to in an arm, %."""

    expected: float
    without: Floats
    """[trials]: the same estimate where one trial is left out."""

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % interval."""
        half = half_width(np.log(100 - self.without))
        error = 100 - self.expected
        return 100 - error * math.exp(half), 100 - error * math.exp(-half)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.expected:.2f} ({low:.2f} to {high:.2f})"


def half_width(without: Floats) -> float:
    """Return half the length of a 95 % interval, from what the estimate is without each trial [trials] (jackknife)."""
    count = len(without)
    error = math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
    return float(stdtrit(count - 1, 0.975)) * error


def accuracies(arm: Mapping[str, Any]) -> Floats:
    """Return the validation accuracy [trials] of each trial that was drawn, %, in the order of their numbers."""
    drawn = sorted((t for t in arm["trials"] if t["number"] >= NOT_DRAWN), key=lambda t: t["number"])
    return 100 * np.array([t["val_acc"] if t["state"] == "COMPLETE" else CHANCE for t in drawn])


def expected_best(values: Floats, k: int) -> float:
    """Return the mean of the best over all subsets of k of `values` [trials]."""
    ranks = range(len(values))  # from the least: how many subsets have each as their best
    share = np.array([math.comb(rank, k - 1) for rank in ranks], dtype=np.float64) / math.comb(len(values), k)
    return float(np.sort(values) @ share)


def estimate(values: Floats, k: int) -> Estimate:
    """Return what the best of k of `values` [trials] is expected to be."""
    without = [expected_best(np.delete(values, place), k) for place in range(len(values))]
    return Estimate(expected_best(values, k), np.array(without))


def gain(one: Estimate, other: Estimate) -> str:
    """Return a difference with its 95 % interval, in points."""
    difference, half = one.expected - other.expected, half_width(one.without - other.without)
    return f"{difference:+.2f} ({difference - half:+.2f} to {difference + half:+.2f})"


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


def draw(values: Mapping[str, Floats], path: Path) -> None:
    """Draw what is to be expected of k trials in each arm, with its band."""
    trials = min(map(len, values.values()))
    caption = (
        f"Expected best validation accuracy of k random trials, as the error that is left, from {trials} trials an "
        "arm; bands: 95 % intervals (jackknife). A trial that diverged counts as 10 % right."
    )
    title = "The winner by budget: MNIST, MLP 784-256-256-10"
    with drawing():
        drawn = sheet(title, caption, 1, [key(arm) for arm in values], panel_height=3)
        for arm, accuracy in values.items():
            _curve(drawn.panels[0], arm, accuracy)
        # Logarithmic: the arms differ by tens of points at first, and in the end by tenths.
        drawn.panels[0].set_yscale("log")
        drawn.panels[0].set_yticks(TICKS, [f"{tick} %" for tick in TICKS])
        drawn.panels[0].minorticks_off()
        drawn.panels[0].set_xticks(BUDGETS)
        label_outer(drawn, "trials k", "error of the best of k")
        path.parent.mkdir(parents=True, exist_ok=True)
        drawn.save(path)


def _curve(panel: Axes, arm: str, accuracy: Floats) -> None:
    budgets = range(1, max(BUDGETS) + 1)
    found = [estimate(accuracy, k) for k in budgets]
    drawn = look(arm)
    panel.plot(budgets, [100 - e.expected for e in found], drawn.line, color=drawn.colour, marker=drawn.marker)
    low, high = ([100 - e.interval[place] for e in found] for place in (1, 0))
    panel.fill_between(budgets, low, high, color=drawn.colour, alpha=0.15, linewidth=0)


def main(results: str, figure: str) -> None:
    """Print the table and draw the figure."""
    run = json.loads(Path(results).read_text())
    values = {name: accuracies(arm) for name, arm in run["arms"].items()}
    trials, seconds = min(map(len, values.values())), f"{run['seconds']:.0f} s"
    print(f"validation accuracy, %, of the best of k, from {trials} random trials an arm (95 % interval); {seconds}\n")
    print(table({name: {k: estimate(accuracy, k) for k in BUDGETS} for name, accuracy in values.items()}))
    print("\n" + diverged(values))
    draw(values, Path(figure))


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
