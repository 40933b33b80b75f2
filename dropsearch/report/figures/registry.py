"""The figures of a run: PNG files of 1,200 pixels in width, and the same drawings for the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dropsearch.core.errors import InputError
from dropsearch.core.records import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

    from dropsearch.report.figures.layout import FigureLayout

    Draw = Callable[[Summary], FigureLayout | None]


@dataclass(frozen=True)
class Figure:
    """A figure that was drawn."""

    name: str
    path: Path
    """Of the PNG."""
    title: str
    caption: str
    alt: str
    """What it shows, in numbers."""
    svg: str
    """An SVG element, without title and caption, for a page whose CSS has the colours of `vector.THEMED`."""


def write_figures(summary: Summary, folder: Path) -> list[Figure]:
    """Draw every figure that the run has data for, write it into `folder`, and return them in reading order.

    A figure of an earlier run that this one has no data for is removed, so that none is mistaken for news.
    """
    # matplotlib takes a third of a second to import, which a run that draws nothing need not wait for.
    from dropsearch.report.figures.layout import drawing
    from dropsearch.report.html.svg import inline

    written = []
    with drawing():
        for name, draw in drawings():
            path, drawn = folder / f"{name}.png", draw(summary)
            if drawn is None:
                path.unlink(missing_ok=True)
            else:
                drawn.save(path)
                written.append(Figure(name, path, drawn.title, drawn.caption, drawn.alt, inline(drawn, name)))
    return written


def figure(summary: Summary, name: str) -> MatplotlibFigure:
    """Draw one figure and return it as matplotlib's.

    Raises:
        InputError: The run has no data for it.
    """
    from dropsearch.report.figures.layout import drawing

    with drawing():
        drawn = dict(drawings())[name](summary)
    if drawn is None:
        raise InputError(
            f"the figure {name} needs data that this run does not have: results.json says what it measured"
        )
    return drawn.figure


def drawings() -> Iterator[tuple[str, Draw]]:
    """Each figure's name and what draws it, in reading order."""
    from dropsearch.report.figures.differences import differences
    from dropsearch.report.figures.effects import coadaptation, gaps, robustness, shift
    from dropsearch.report.figures.ensemble import ensemble
    from dropsearch.report.figures.landscape import budgets, found, responses
    from dropsearch.report.figures.learning_curves import curves
    from dropsearch.report.figures.search_trials import best_so_far, rates

    drawings = (curves, best_so_far, rates, differences, found, responses, budgets)
    evidence = (gaps, coadaptation, robustness, ensemble, shift)
    for draw in (*drawings, *evidence):
        yield draw.__name__, draw
