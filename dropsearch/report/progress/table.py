"""Progress as a table that is redrawn in the terminal."""

from __future__ import annotations

import math
import sys
from importlib.util import find_spec
from typing import Any, TextIO

from dropsearch.report.numbers import short
from dropsearch.report.progress.lines import status
from dropsearch.report.progress.state import ArmState
from dropsearch.report.progress.view import Snapshot, View

CELLS = 12
"""Number of cells of a strip of rates, from 0 to `HIGHEST_RATE`."""
HIGHEST_RATE = 0.95
BEST_SHARE = 0.25
"""Share of an arm's trials, the best ones, whose rates are in its strip."""
DOTS, ASCII_DOTS = " ·•●", " .o@"


def can_draw() -> bool:
    """Return whether rich is installed."""
    return find_spec("rich") is not None


class LiveTable(View):
    """A table with a row per arm, and the progress of the whole run below."""

    every = 1.0

    def __init__(self, stream: TextIO | None = None, width: int | None = None) -> None:
        from rich.console import Console  # pyright: ignore[reportMissingImports]
        from rich.live import Live  # pyright: ignore[reportMissingImports]

        self._console = Console(file=sys.stderr if stream is None else stream, width=width)
        self._live = Live(console=self._console, auto_refresh=False, transient=False)

    def draw(self, now: Snapshot) -> None:
        """Redraw the table."""
        if not self._live.is_started:
            self._live.start()
        if estimate := self.new_estimate(now):
            self.note(estimate)
        self._live.update(self._table(now), refresh=True)

    def note(self, line: str) -> None:
        """Print a line above the table."""
        self._console.print(line, markup=False, highlight=False)

    def close(self, now: Snapshot) -> None:
        """Leave the last table on the terminal."""
        if self._live.is_started:
            self._live.update(self._table(now), refresh=True)
            self._live.stop()

    def _table(self, now: Snapshot) -> Any:
        from rich.console import Group  # pyright: ignore[reportMissingImports]
        from rich.progress_bar import ProgressBar  # pyright: ignore[reportMissingImports]
        from rich.table import Table  # pyright: ignore[reportMissingImports]
        from rich.text import Text  # pyright: ignore[reportMissingImports]

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("arm", max_width=14, no_wrap=True)
        for name in ("done", "pruned", "training", "confirmed", "best"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column(f"rates of best\n0 {'to':^{CELLS - 6}} {HIGHEST_RATE}", no_wrap=True)
        for arm in now.state.arms.values():
            table.add_row(*(Text(cell) for cell in self._row(arm, now)))
        width = min(self._console.width, 80)
        bar = Table.grid()
        bar.add_row(ProgressBar(total=1.0, completed=now.share, width=width))
        lines = [Text(status(now, best=False), no_wrap=True, overflow="ellipsis")]
        if now.work and not now.ending:
            lines.append(Text(now.work))
        return Group(table, bar, *lines)

    def _row(self, arm: ArmState, now: Snapshot) -> tuple[str, ...]:
        pruned = arm.ended.get("PRUNED", 0)
        best = now.state.monitor.objective(arm.best.objective) if arm.best else math.nan
        done = f"{sum(arm.ended.values())}/{now.state.n_trials}"
        return (
            arm.name,
            done,
            str(pruned),
            str(len(arm.running)),
            str(arm.confirmed),
            "" if math.isnan(best) else short(best),
            strip(arm, DOTS if _is_unicode(self._console.encoding) else ASCII_DOTS),
        )


def strip(arm: ArmState, dots: str = DOTS) -> str:
    """Return a strip of the rates of an arm's best trials: one cell per range of rates, denser with more trials."""
    given = arm.points if arm.searches_rates else []
    points = sorted((point for point in given if point.rates), key=lambda point: point.objective)
    points = points[: max(math.ceil(BEST_SHARE * len(points)), 1)]
    counts = [0] * CELLS
    for rate in (rate for point in points for rate in point.rates.values()):
        counts[min(int(rate / HIGHEST_RATE * CELLS), CELLS - 1)] += 1
    most = max(counts)
    if not most:
        return ""
    return "".join(dots[math.ceil((len(dots) - 1) * count / most)] for count in counts)


def _is_unicode(encoding: str) -> bool:
    return encoding.lower().replace("-", "").startswith("utf")
