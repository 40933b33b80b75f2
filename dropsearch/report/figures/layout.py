"""The layout of a figure: size, title, legend, panels and caption, without pyplot's global state."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.text import Text

from dropsearch.core.atomic_io import atomic_write
from dropsearch.report.figures.palette import GRID, QUIET, arm_style
from dropsearch.report.numbers import shorten

WIDTH = 8.0
"""Width in inches; with `DPI` a figure is 1,200 pixels wide."""
DPI = 150
FILLED = 0.93
"""Largest share of its place that a label takes; a browser's letters may be wider."""
TOUCHING = 0.1
"""Panels whose middles are closer, in inches, are in one row or column."""
SMALLEST = 4.0
"""Font size, in points, below which a text is not shrunk."""
LINE = 0.16
"""Height of a caption line, in inches."""
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
    "grid.color": GRID,
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


class ShownFigure(Figure):
    """A figure that a notebook shows, although pyplot, which would see to that, is not used."""

    def _repr_png_(self) -> bytes:
        image = BytesIO()
        self.savefig(image, format="png")
        return image.getvalue()


@contextmanager
def drawing() -> Iterator[None]:
    """Use matplotlib's defaults and `STYLE` within the context."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        with warnings.catch_warnings():
            # Names may be in any script; missing glyphs need no warning.
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")
            warnings.filterwarnings("ignore", message="Matplotlib currently does not support .* natively")
            yield


@dataclass(frozen=True)
class FigureLayout:
    """A figure with its panels, row by row, and its texts."""

    figure: Figure
    panels: list[Axes]
    columns: int
    title: str
    caption: str
    words: tuple[Text, Text]
    """Drawn title and caption."""
    margins: tuple[float, float]
    """Heights of the title and the caption, in inches."""

    def fit_labels(self) -> None:
        """Shorten labels of axes that are longer than the place of their panel, and let title and caption fit."""
        width, height = self.figure.get_size_inches()
        boxes = [panel.get_position() for panel in self.panels]
        above, below = self.margins
        for panel, box in zip(self.panels, boxes, strict=True):
            x, y = width * (box.x0 + box.x1) / 2, height * (box.y0 + box.y1) / 2
            besides = [abs(x - width * (each.x0 + each.x1) / 2) for each in boxes]
            stacked = [abs(y - height * (each.y0 + each.y1) / 2) for each in boxes]
            _fit(panel.xaxis.label, min(2 * x, 2 * (width - x), *_distances(besides)))
            _fit(panel.yaxis.label, min(2 * (y - below), 2 * (height - above - y), *_distances(stacked)))
        room = (width - 0.2) * self.figure.dpi
        for text in self.words:
            # Letters are fitted to whole pixels, so a text's width does not follow its size exactly.
            size = float(text.get_fontsize())
            while (wide := text.get_window_extent().width) > room and size > SMALLEST:
                size = min(size * room / wide, size - 0.1)
                text.set_fontsize(size)

    def save(self, path: Path) -> Path:
        """Write the figure as PNG atomically and return the path."""
        with atomic_write(path) as temporary:
            FigureCanvasAgg(self.figure).print_png(str(temporary))
        return path


def _distances(found: Sequence[float]) -> list[float]:
    """Return the distances to panels in other rows or columns, in inches."""
    return [each for each in found if each > TOUCHING]


def _fit(label: Text, inches: float) -> None:
    """Shorten a label in its middle until it is at most this long."""
    whole = text = label.get_text()
    for size in range(len(whole), 7, -2):
        text = shorten(whole, size)
        label.set_text(text)
        box = label.get_window_extent()
        if max(box.width, box.height) <= FILLED * inches * label.figure.dpi:
            return


def figure_layout(
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
    gap: float | None = None,
) -> FigureLayout:
    """Return a layout of `count` panels in `columns`, each `panel_height` inches high, with `keys` as legend.

    Panels share both axes, unless a `gap` between columns is given, in inches. `titled` leaves space for a title above
    each panel.
    """
    rows = math.ceil(count / columns)
    lines = textwrap.wrap(caption, 126)
    key_rows = math.ceil(sum(0.62 + 0.075 * len(str(key.get_label())) for key in keys) / (WIDTH - 0.2))
    above, below, between = 0.52 + (0.23 if titled else 0) + 0.23 * key_rows, 0.62 + LINE * len(lines), 0.42
    height = above + below + rows * panel_height + (rows - 1) * between
    figure = ShownFigure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    grid = figure.add_gridspec(
        rows,
        columns,
        left=left / WIDTH,
        right=1 - right / WIDTH,
        top=1 - above / height,
        bottom=below / height,
        hspace=between / panel_height,
        wspace=0.12 if gap is None else gap * columns / (WIDTH - left - right - gap * (columns - 1)),
    )
    panels = _panels(figure, grid, count, columns, shared=gap is None)
    headline = figure.text(0.1 / WIDTH, 1 - 0.1 / height, title, fontsize=12, fontweight="bold", va="top")
    _legend(figure, keys, key_rows)
    below_all = figure.text(0.1 / WIDTH, 0.07 / height, "\n".join(lines), fontsize=8, color=QUIET, va="bottom")
    margins = (0.33, 0.07 + LINE * len(lines))
    return FigureLayout(figure, panels, columns, title, caption, (headline, below_all), margins)


def _panels(figure: Figure, grid: GridSpec, count: int, columns: int, *, shared: bool) -> list[Axes]:
    panels: list[Axes] = []
    for place in range(count):
        first = panels[0] if panels and shared else None
        panels.append(figure.add_subplot(grid[place // columns, place % columns], sharex=first, sharey=first))
        if shared:
            panels[-1].tick_params(labelleft=place % columns == 0, labelbottom=place + columns >= count)
    return panels


def _legend(figure: Figure, keys: Sequence[Line2D], rows: int) -> None:
    """Draw the legend between title and panels, in as many rows as needed."""
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


def key(arm: str, label: str = "", *, dots: bool = False) -> Line2D:
    """Return the legend entry of an arm."""
    drawn = arm_style(arm)
    return Line2D(
        [],
        [],
        color=drawn.colour,
        marker=drawn.marker,
        linestyle="" if dots else drawn.line,
        markersize=5.5,
        label=label or arm,
    )
