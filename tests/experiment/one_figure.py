"""Runs that write one figure of twelve: to draw them all takes half of the time of a small run."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from unittest.mock import patch

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


def write_first_figure(summary: Summary, folder: Path, step: Callable[[], None] = lambda: None) -> list[Figure]:
    """Write the first figure of a run as it would be written among all."""
    with patch.object(registry, "drawings", lambda: islice(drawings(), 1)):
        return write_figures(summary, folder, step)
