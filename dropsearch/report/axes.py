"""What the axes of a figure show: names, ticks, scales and limits."""

from __future__ import annotations

import math
from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from dropsearch.report.bands import finite
from dropsearch.report.palette import QUIET
from dropsearch.report.sheet import Sheet


def label_outer(drawn: Sheet, x: str, y: str) -> None:
    """Name the axes once: y at the first column, x below the lowest panel of each column."""
    for place, panel in enumerate(drawn.panels):
        if place % drawn.columns == 0:
            panel.set_ylabel(y)
        if place + drawn.columns >= len(drawn.panels):
            panel.set_xlabel(x)


def loss_axis(panel: Axes, values: Iterable[float], floor: float = 0.0) -> None:
    """Fit the y axis to losses: logarithmic where they span more than a factor of six."""
    known = [max(value, floor) for value in finite(list(values))]
    if not known:
        return
    low, high = min(known), max(known)
    if low > 0 and high > 6 * low:
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_minor_locator(NullLocator())
        panel.set_ylim(low / 1.15, high * 1.15)
    else:
        room = 0.06 * (high - low) or 0.05 * abs(high) or 0.1
        panel.set_ylim(low - room, high + room)


def whole_numbers(panel: Axes) -> None:
    """Ticks of x at whole numbers only."""
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))


def say(panel: Axes, text: str) -> None:
    """Words in the middle of a panel that has nothing to draw, and no ticks unless other panels need them."""
    if len(panel.get_shared_x_axes().get_siblings(panel)) == 1:
        panel.set_xticks([])
        panel.set_yticks([])
    panel.text(0.5, 0.5, text, transform=panel.transAxes, ha="center", va="center", color=QUIET)


def ceiling(values: Iterable[float]) -> float:
    """The greatest value worth an axis, at most three quartile ranges above the third quartile."""
    known = sorted(finite(list(values)))
    if not known:
        return math.inf
    low, high = known[len(known) // 4], known[(3 * len(known)) // 4]
    fence = high + 3 * max(high - low, 1e-3 * abs(high))
    return max(value for value in known if value <= fence)
