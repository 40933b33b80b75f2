"""A measure by arm: a dot a seed, the mean and its interval, one row an arm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from dropsearch.report.bands import finite, shown_interval
from dropsearch.report.figures.palette import arm_style

ROW = 0.45
"""Height of an arm's row, in inches."""
BAND = "95 % interval of the mean (Student's t), with fewer than three seeds the range"
KEYS = ("mean and interval", "one seed")


def keys() -> list[Line2D]:
    """The legend of such a panel."""
    mean, seed = KEYS
    return [
        Line2D([], [], color="black", marker="o", label=mean),
        Line2D([], [], color="black", marker="o", markersize=3.4, linestyle="", alpha=0.5, label=seed),
    ]


def strip(panel: Axes, arms: Sequence[str], values: Mapping[str, Sequence[float]]) -> None:
    """Draw `values` by arm, in rows as `arms` has them from top to bottom; an arm without any keeps its row empty."""
    for row, arm in enumerate(arms):
        known = finite(values.get(arm, ()))
        if not known:
            continue
        drawn, interval = arm_style(arm), shown_interval(known)
        seeds = {"markersize": 3.4, "alpha": 0.5, "markeredgewidth": 0, "color": drawn.colour}
        panel.plot(known, [row + 0.24] * len(known), "o", **seeds)
        if math.isfinite(interval.low):
            panel.plot([interval.low, interval.high], [row, row], color=drawn.colour, linewidth=2.4, zorder=3)
        panel.plot([interval.mean], [row], drawn.marker, markersize=7, color=drawn.colour, zorder=4)
    panel.set_yticks(range(len(arms)), arms)
    panel.set_ylim(len(arms) - 0.45, -0.6)
    panel.tick_params(axis="y", length=0)
    panel.grid(visible=False, axis="y")
    panel.spines["left"].set_visible(False)


def margin(arms: Sequence[str]) -> float:
    """Inches that the arms' names take to the left of the panel."""
    return 0.3 + 0.078 * max(map(len, arms), default=0)
