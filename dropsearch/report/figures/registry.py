"""Registry of figures: PNG files 1,200 pixels wide, and SVG for the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from dropsearch.core.errors import InputError
from dropsearch.core.records import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

    from dropsearch.report.figures.layout import FigureLayout

    Draw = Callable[[Summary], FigureLayout | None]


_FILES = {
    "curves": "learning_curves",
    "best_so_far": "search_trials",
    "rates": "search_trials",
    "differences": "differences",
    "found": "landscape",
    "responses": "landscape",
    "budgets": "landscape",
    "gaps": "effects",
    "coadaptation": "effects",
    "robustness": "effects",
    "ensemble": "effects",
    "shift": "effects",
}
"""File of each figure's function, in reading order. To add a figure, write its function and list it here."""
FIGURES = len(_FILES)
"""Number of figures of a run with data for all of them."""


@dataclass(frozen=True)
class Figure:
    """A drawn figure."""

    name: str
    path: Path
    """Path of the PNG file."""
    title: str
    caption: str
    svg: str
    """SVG element without title and caption, for a page whose CSS defines the colors of `svg.THEMED`."""


def write_figures(summary: Summary, folder: Path, step: Callable[[], None] = lambda: None) -> list[Figure]:
    """Write every figure with data in the run to `folder`, and return them in reading order.

    Figures of an earlier run that this one has no data for are removed. `step` is called after each of `FIGURES`.
    """
    from dropsearch.report.figures.layout import drawing
    from dropsearch.report.figures.svg import inline

    written = []
    with drawing():
        for name, draw in drawings():
            path, drawn = folder / f"{name}.png", draw(summary)
            if drawn is None:
                path.unlink(missing_ok=True)
            else:
                drawn.save(path)
                written.append(Figure(name, path, drawn.title, drawn.caption, inline(drawn, name)))
            step()
    return written


def figure(summary: Summary, name: str) -> MatplotlibFigure:
    """Return one figure as a matplotlib figure.

    Raises:
        InputError: The run has no data for it.
    """
    from dropsearch.report.figures.layout import drawing

    with drawing():
        drawn = dict(drawings())[name](summary)
    if drawn is None:
        raise InputError(
            f"the figure {name} needs data that this run does not have: see results.json for what it measured"
        )
    return drawn.figure


def drawings() -> Iterator[tuple[str, Draw]]:
    """Yield each figure's name and draw function, in reading order."""
    for name, file in _FILES.items():
        # Imported here, since matplotlib takes a third of a second.
        yield name, partial(_fitted, getattr(import_module(f"dropsearch.report.figures.{file}"), name))


def _fitted(draw: Draw, summary: Summary) -> FigureLayout | None:
    drawn = draw(summary)
    if drawn is not None:
        drawn.fit_labels()
    return drawn
