"""The figures of a run: PNG files of 1,200 pixels in width, and the same drawings for the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dropsearch.records import Summary

if TYPE_CHECKING:
    from dropsearch.report.sheet import Sheet

    Draw = Callable[[Summary], Sheet | None]


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
    from dropsearch.report.sheet import drawing
    from dropsearch.report.vector import inline

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


def drawings() -> Iterator[tuple[str, Draw]]:
    """Each figure's name and what draws it, in reading order."""
    from dropsearch.report.budgets import budgets
    from dropsearch.report.coadaptation import coadaptation
    from dropsearch.report.curves import curves
    from dropsearch.report.differences import differences
    from dropsearch.report.ensemble import ensemble
    from dropsearch.report.found import found
    from dropsearch.report.gaps import gaps
    from dropsearch.report.responses import responses
    from dropsearch.report.robustness import robustness
    from dropsearch.report.shift import shift
    from dropsearch.report.train_sizes import train_sizes
    from dropsearch.report.trials import best_so_far, rates

    drawings = (curves, best_so_far, rates, differences, found, responses, budgets)
    evidence = (gaps, train_sizes, coadaptation, robustness, ensemble, shift)
    for draw in (*drawings, *evidence):
        yield draw.__name__, draw
