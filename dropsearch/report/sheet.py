"""A figure's frame: its size, title, legend, panels, axes and caption, without pyplot's global state."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from dropsearch.drafts import whole
from dropsearch.report.bands import finite
from dropsearch.report.palette import QUIET, look

WIDTH = 8.0
"""Inches; with `DPI` a figure is 1,200 pixels wide."""
DPI = 150
LINE = 0.16
"""Height of a line of the caption, in inches."""
STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": QUIET,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.parse_math": False,
}


@contextmanager
def drawing() -> Iterator[None]:
    """Matplotlib's own defaults and `STYLE` while figures are drawn; then the caller's settings again."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


@dataclass(frozen=True)
class Sheet:
    """A figure with its panels, row by row."""

    figure: Figure
    panels: list[Axes]
    columns: int

    def save(self, path: Path) -> Path:
        """Write the figure as PNG, whole or not at all, and return the path."""
        with whole(path) as draft:
            FigureCanvasAgg(self.figure).print_png(str(draft))
        return path


def sheet(
    title: str,
    caption: str,
    count: int,
    keys: Sequence[Line2D] = (),
    *,
    columns: int = 1,
    panel_height: float = 2.0,
    left: float = 0.7,
    right: float = 0.15,
    titled: bool = False,
) -> Sheet:
    """A sheet of `count` panels in `columns`, each `panel_height` inches high, with `keys` for a legend.

    All panels share both axes; `titled` leaves room for a title above each.
    """
    rows = math.ceil(count / columns)
    lines = textwrap.wrap(caption, 126)
    key_rows = math.ceil(sum(0.62 + 0.075 * len(str(key.get_label())) for key in keys) / (WIDTH - 0.2))
    above, below, between = 0.52 + (0.23 if titled else 0) + 0.23 * key_rows, 0.62 + LINE * len(lines), 0.42
    height = above + below + rows * panel_height + (rows - 1) * between
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    grid = figure.add_gridspec(
        rows,
        columns,
        left=left / WIDTH,
        right=1 - right / WIDTH,
        top=1 - above / height,
        bottom=below / height,
        hspace=between / panel_height,
        wspace=0.12,
    )
    panels: list[Axes] = []
    for place in range(count):
        first = panels[0] if panels else None
        panels.append(figure.add_subplot(grid[place // columns, place % columns], sharex=first, sharey=first))
        lowest = place + columns >= count
        panels[-1].tick_params(labelleft=place % columns == 0, labelbottom=lowest)
    figure.text(0.1 / WIDTH, 1 - 0.1 / height, title, fontsize=12, fontweight="bold", va="top")
    _legend(figure, keys, key_rows)
    figure.text(0.1 / WIDTH, 0.07 / height, "\n".join(lines), fontsize=8, color=QUIET, va="bottom")
    return Sheet(figure, panels, columns)


def _legend(figure: Figure, keys: Sequence[Line2D], rows: int) -> None:
    """Keys between title and panels, in as many rows as they need."""
    if keys:
        figure.legend(
            handles=keys,
            loc="upper left",
            bbox_to_anchor=(0.06 / WIDTH, 1 - 0.36 / figure.get_figheight()),
            ncols=math.ceil(len(keys) / rows),
            borderaxespad=0,
            handletextpad=0.5,
            columnspacing=1.4,
        )


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


def key(arm: str, label: str = "", *, dots: bool = False) -> Line2D:
    """An arm's entry in a legend."""
    drawn = look(arm)
    return Line2D(
        [],
        [],
        color=drawn.colour,
        marker=drawn.marker,
        linestyle="" if dots else drawn.line,
        markersize=5.5,
        label=label or arm,
    )
