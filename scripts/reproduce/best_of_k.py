"""`best_of_k.py RESULTS FIGURE`: the validation accuracy to expect of the best of k random trials, by arm.

Expectation and band of an arm are those of `dropsearch.analysis.budget`. Differences are paired, for trials of one
number have one learning rate and weight decay in every arm: their intervals are Student's on the jackknife's standard
error, too short at large k, where a few trials count. Trials 0 and 1 are left out: some arms do not draw them. A trial
that diverged counts as chance, as it does in the publication.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.special import stdtrit

from dropsearch.analysis.budget import random_search
from dropsearch.core.records import Budget, EpochMetrics, TrialResult, TrialSpec
from dropsearch.report.figures.axes import label_outer
from dropsearch.report.figures.layout import drawing, figure_layout, key
from dropsearch.report.figures.palette import arm_style

PUBLISHED = {
    "none": {1: 91.96, 5: 98.39, 10: 98.49, 20: 98.56},
    "typical": {1: 66.23, 5: 97.70, 10: 98.51, 20: 98.65},
    "batchnorm": {1: 98.08, 5: 98.47, 10: 98.55, 20: 98.60},
}
"""Test accuracy, %, computed from the raw runs of Garbin et al. (2020); their dropout has fixed rates."""
BUDGETS = (1, 5, 10, 20)
CHANCE = 0.1
NOT_DRAWN = 2
"""How many trials at the beginning are points of the search's choice, in at least one arm."""
TICKS = (2, 3, 5, 10, 20, 40, 80)

Floats = NDArray[np.float64]


def accuracies(arm: Mapping[str, Any]) -> Floats:
    """Return the validation accuracy [trials] of each trial that was drawn, %, in the order of their numbers."""
    drawn = sorted((t for t in arm["trials"] if t["number"] >= NOT_DRAWN), key=lambda t: t["number"])
    return 100 * np.array([t["val_acc"] if t["state"] == "COMPLETE" else CHANCE for t in drawn])


def budget(accuracy: Floats) -> Budget:
    """Return the least error, %, to expect of k of the trials, for each k."""
    found = random_search([_trial(100 - float(value)) for value in accuracy])
    assert found is not None
    return found


def _trial(error: float) -> TrialResult:
    spec = TrialSpec("", 0, 0, {}, lr=0.0, weight_decay=0.0)
    return TrialResult(spec, "COMPLETE", (EpochMetrics(0, math.nan, math.nan, error),), 0.0)


def expected_best(values: Floats, k: int) -> float:
    """Return the mean of the best over all subsets of k of `values` [trials]."""
    ranks = range(len(values))  # from the least: how many subsets have each as their best
    share = np.array([math.comb(rank, k - 1) for rank in ranks], dtype=np.float64) / math.comb(len(values), k)
    return float(np.sort(values) @ share)


def gain(one: Floats, other: Floats, k: int) -> str:
    """Return the difference of what the best of k comes to, in points, with its 95 % interval (jackknife)."""
    difference, count = expected_best(one, k) - expected_best(other, k), len(one)
    rest = (np.delete(np.stack([one, other]), place, axis=1) for place in range(count))
    without = np.array([expected_best(a, k) - expected_best(b, k) for a, b in rest])
    error = math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
    half = float(stdtrit(count - 1, 0.975)) * error
    return f"{difference:+.2f} ({difference - half:+.2f} to {difference + half:+.2f})"


def table(values: Mapping[str, Floats]) -> str:
    """Return the table of all arms and of their distances from none, as Markdown."""
    heads = [f"best of {k}" for k in BUDGETS]
    lines = ["| arm | " + " | ".join(heads) + " |", "| :-- |" + " --: |" * len(heads)]
    for arm, accuracy in values.items():
        lines.append(f"| {arm} | " + " | ".join(_cells(budget(accuracy))) + " |")
        if arm in PUBLISHED:
            lines.append("| - published | " + " | ".join(f"{PUBLISHED[arm][k]:.2f}" for k in BUDGETS) + " |")
    for arm in [arm for arm in values if arm != "none"]:
        differences = [gain(values[arm], values["none"], k) for k in BUDGETS]
        lines.append(f"| {arm} minus none | " + " | ".join(differences) + " |")
    return "\n".join(lines)


def _cells(found: Budget) -> Iterator[str]:
    for k, error, low, high in zip(found.trials, found.expected, found.low, found.high, strict=True):
        if k in BUDGETS:
            yield f"{100 - error:.2f} ({100 - high:.2f} to {100 - low:.2f})"


def draw(values: Mapping[str, Floats], path: Path) -> None:
    """Draw what is to be expected of k trials in each arm, with its band."""
    trials = min(map(len, values.values()))
    caption = (
        f"Expected best validation accuracy of k random trials, as the error that is left, from {trials} trials an "
        "arm; bands: 95 %. A trial that diverged counts as 10 % right."
    )
    title = "The winner by budget: MNIST, MLP 784-256-256-10"
    with drawing():
        drawn = figure_layout(title, caption, 1, [key(arm) for arm in values], panel_height=3)
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
    found, drawn = budget(accuracy), arm_style(arm)
    shown = slice(max(BUDGETS))
    trials = found.trials[shown]
    panel.plot(trials, found.expected[shown], drawn.line, color=drawn.colour, marker=drawn.marker)
    panel.fill_between(trials, found.low[shown], found.high[shown], color=drawn.colour, alpha=0.15, linewidth=0)


def main(results: str, figure: str) -> None:
    """Print the table and draw the figure."""
    run = json.loads(Path(results).read_text())
    values = {name: accuracies(arm) for name, arm in run["arms"].items()}
    trials = min(map(len, values.values()))
    values = {name: accuracy[:trials] for name, accuracy in values.items()}
    about = f"from {trials} random trials an arm (95 % interval); {run['seconds']:.0f} s"
    print(f"validation accuracy, %, of the best of k, {about}\n\n{table(values)}\n\n{diverged(values)}")
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
