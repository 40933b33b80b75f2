"""Runs that write one figure of twelve: to draw them all takes half of the time of a small run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from unittest.mock import patch

from dropsearch.core.atomic_io import atomic_write
from dropsearch.core.records import Summary
from dropsearch.report.figures import registry
from dropsearch.report.figures.registry import Figure, drawings, write_figures

PLACE = "dropsearch.experiment.artifacts.write_figures"
"""Where a run finds what writes its figures."""
ONE_FIGURE = f"""
import importlib
from tests.experiment.one_figure import write_first_figure
importlib.import_module("{PLACE.rpartition(".")[0]}").write_figures = write_first_figure
"""
"""The setup of a forked run that writes one figure."""
_drawn: list[tuple[Figure, bytes]] = []


def write_first_figure(summary: Summary, folder: Path, step: Callable[[], None] = lambda: None) -> list[Figure]:
    """Write the first figure of a run; it is drawn once in a process, and stands for those of later runs."""
    if _drawn:
        ((figure, image),) = _drawn
        path = folder / figure.path.name
        with atomic_write(path) as temporary:
            temporary.write_bytes(image)
        step()
        return [replace(figure, path=path)]
    with patch.object(registry, "drawings", lambda: islice(drawings(), 1)):
        written = write_figures(summary, folder, step)
    _drawn.extend((figure, figure.path.read_bytes()) for figure in written)
    return written
