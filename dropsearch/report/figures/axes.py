"""Axes of figures: labels, ticks, scales and limits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from dropsearch.core.records import Monitor, Summary
from dropsearch.report.figures.layout import FigureLayout, figure_layout
from dropsearch.report.figures.palette import QUIET, arm_style
from dropsearch.report.measured_values import FEWEST_FOR_INTERVAL, Band, finite, shown_interval
from dropsearch.report.numbers import shorten, with_unit

LONGEST_LABEL = 40
"""Characters of a metric's name at an axis; a name of any length is in the title."""


def label_outer(drawn: FigureLayout, x: str, y: str) -> None:
    """Label the axes once: y at the first column, x below the lowest panel of each column."""
    for place, panel in enumerate(drawn.panels):
        if place % drawn.columns == 0:
            panel.set_ylabel(y)
        if place + drawn.columns >= len(drawn.panels):
            panel.set_xlabel(x)


def loss_axis(panel: Axes, values: Iterable[float], floor: float = -math.inf) -> None:
    """Fit the y axis to losses, none below `floor`: logarithmic if they span more than a factor of six."""
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
    """Set ticks of x at integers only."""
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))


def say(panel: Axes, text: str) -> None:
    """Write a text in the middle of an empty panel, without ticks unless other panels need them."""
    if len(panel.get_shared_x_axes().get_siblings(panel)) == 1:
        panel.set_xticks([])
        panel.set_yticks([])
    panel.text(0.5, 0.5, text, transform=panel.transAxes, ha="center", va="center", color=QUIET)


def ceiling(values: Iterable[float]) -> float:
    """Return the upper limit of an axis, at most three quartile ranges above the third quartile."""
    known = sorted(finite(list(values)))
    if not known:
        return math.inf
    low, high = known[len(known) // 4], known[(3 * len(known)) // 4]
    fence = high + 3 * max(high - low, 1e-3 * abs(high))
    return max(value for value in known if value <= fence)


def line(panel: Axes, arm: str, x: Sequence[float], band: Band, scale: float = 1.0) -> None:
    """Draw the line and band of an arm, times `scale`."""
    drawn = arm_style(arm)
    marks = {"marker": drawn.marker, "markersize": 4.5} if len(x) <= 12 else {}
    panel.plot(x, scale * band.mean, drawn.line, color=drawn.colour, linewidth=1.8, **marks)
    panel.fill_between(x, scale * band.low, scale * band.high, color=drawn.colour, alpha=0.16, linewidth=0)


def explained(seeds: int) -> str:
    """Return the explanation of lines and bands for a number of seeds."""
    if seeds == 1:
        return "Lines: one seed."
    if seeds < FEWEST_FOR_INTERVAL:
        return f"Lines: mean over {seeds} seeds; bands: range from least to greatest."
    return f"Lines: mean over {seeds} seeds; bands: 95 % interval of the mean (Student's t)."


CHARACTERS = 14.5
"""Characters of a panel's title per inch."""


def site_panels(title: str, sites: list[str], caption: str, keys: list[Line2D]) -> tuple[FigureLayout, list[str]]:
    """Return a layout with one panel per site, and the sites' names shortened to the width of the panels."""
    few = len(sites) <= 4
    columns = len(sites) if few else 3 if len(sites) <= 6 else 4 if len(sites) <= 8 else 5
    room = int(CHARACTERS * 6.6 / columns)
    prefix = _common_folder(sites) if max(map(len, sites)) > room else ""
    if prefix:
        caption += f" Names of sites go on from {prefix}"
    drawn = figure_layout(
        title,
        caption,
        len(sites),
        keys,
        columns=columns,
        panel_height=2.4 if few else 1.35,
        titled=True,
    )
    return drawn, [shorten(site.removeprefix(prefix), room) for site in sites]


def _common_folder(sites: list[str]) -> str:
    """Return the common prefix of all paths, up to and including a dot."""
    paths = [site.split(".")[:-1] for site in sites]
    shared = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return "".join(f"{parts[0]}." for parts in shared)


def score_label(summary: Summary) -> str:
    """Return the label of the score axis: the monitored metric."""
    monitor = summary.monitor
    if monitor.is_val_loss:
        return with_unit("validation loss", summary.comparison_metric.loss_unit)
    return with_unit(shorten(monitor.name, LONGEST_LABEL), monitor.unit)


def show_as_logged(panels: Sequence[Axes], monitor: Monitor) -> None:
    """Label objectives on the y axes as the values that were logged; where higher is better, the best is at the top."""
    if monitor.mode == "min":
        return
    for panel in panels:
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{0.0 - value:.6g}"))
        if not panel.yaxis_inverted():  # panels may share an axis
            panel.invert_yaxis()


ROW = 0.45
"""Height of an arm's row, in inches."""
BAND = "95 % interval of the mean (Student's t), with fewer than three seeds the range"


def keys() -> list[Line2D]:
    """Return the legend of a strip panel."""
    return [
        Line2D([], [], color="black", marker="o", label="mean and interval"),
        Line2D([], [], color="black", marker="o", markersize=3.4, linestyle="", alpha=0.5, label="one seed"),
    ]


def strip(panel: Axes, arms: Sequence[str], values: Mapping[str, Sequence[float]]) -> None:
    """Draw `values` by arm in rows, in the order of `arms` from top to bottom; arms without values have empty rows."""
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
    name_rows(panel, arms)


def name_rows(panel: Axes, names: Sequence[str]) -> None:
    """Give each row of a panel its name, the first at the top, instead of a scale."""
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.45, -0.6)
    panel.tick_params(axis="y", length=0)
    panel.grid(visible=False, axis="y")
    panel.spines["left"].set_visible(False)


def margin(names: Sequence[str]) -> float:
    """Return the width of the names of rows to the left of the panel, in inches."""
    return 0.3 + 0.078 * max(map(len, names), default=0)
