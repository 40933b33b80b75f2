"""The live page of a running search: report.html before the report, and the same in a notebook."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from dropsearch.core.atomic_io import atomic_write_text
from dropsearch.report.figures.palette import arm_style
from dropsearch.report.numbers import short
from dropsearch.report.progress.charts import curves_chart, rate_charts, site_count
from dropsearch.report.progress.state import ArmState
from dropsearch.report.progress.view import Snapshot, View, duration
from dropsearch.report.text.escaping import drawable

SECONDS_BETWEEN_PAGES = 5.0
RELOAD_SECONDS = 5
STILL_SECONDS = 60
"""Seconds without a new page after which a browser says so; load delays a page by less."""
CLOCKS_DIFFER = 86_400
"""Seconds by which the clocks of browser and run may differ; an older page is old in any case."""
MARK = '<meta name="dropsearch" content="live">'
ENDED = {"stopped": "The run was stopped.", "failed": "The run failed."}
_STYLE = """
.bar { height: .6rem; background: var(--grid); border-radius: .3rem; margin: .5rem 0 0; overflow: hidden; }
.bar span { display: block; height: 100%; background: var(--link); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: 1rem; }
.charts svg, .curves svg { min-width: 0; }
.curves svg { max-width: 34rem; }
figure { margin: 1rem 0; min-width: 0; }
figcaption { overflow-wrap: anywhere; }
thead th { min-width: 0; }
svg text { fill: var(--quiet); font: 11px var(--type); }
svg .axis { stroke: var(--quiet); stroke-width: 1; fill: none; }
svg .none { stroke: var(--ink); fill: var(--ink); }
@media (max-width: 40rem) {
  table { font-size: .75rem; }
  th, td, tr > :first-child { padding-left: 0; padding-right: .3rem; }
}
"""


_STILL = """<script>
const written = %d, now = Date.now() / 1000, place = "dropsearch " + location.pathname;
let seen = null;
try { seen = JSON.parse(sessionStorage.getItem(place)); } catch (error) {}
if (!seen || seen.written !== written) {
  seen = {written: written, at: now};
  try { sessionStorage.setItem(place, JSON.stringify(seen)); } catch (error) {}
}
const old = now - written > %d ? now - written : now - seen.at;
if (old > %d) {
  const since = old < 5400 ? Math.round(old / 60) + " min" : Math.round(old / 3600) + " h";
  document.querySelector(".answer").textContent =
    "This page has not been written for " + since + ": the run has ended without a report, or its machine stands "
    + "still. The same command continues it.";
  document.querySelector(".left-to-do").remove();
  document.title = "stopped: " + document.title;
}
</script>
"""


class LivePage(View):
    """Writes the page every few seconds until the report replaces it."""

    every = SECONDS_BETWEEN_PAGES

    def __init__(self, path: Path, title: str, clock: Callable[[], float] = time.time) -> None:
        self._path, self._title, self._clock = path, title, clock
        self._reports = False

    def begin(self, now: Snapshot) -> None:
        """Write the page at the start of a stage, for the last time before the report is written."""
        self.draw(now)
        self._reports = self._reports or now.stage == "report"

    def draw(self, now: Snapshot) -> None:
        """Write the page."""
        if not self._reports:
            self._write(now)

    def close(self, now: Snapshot) -> None:
        """Show how a run without a report ended, and stop the reloading."""
        if now.ending != "done" and self._is_ours():
            self._write(now)

    def _is_ours(self) -> bool:
        with suppress(OSError):
            return MARK in self._path.read_text(encoding="utf-8")[:2000]
        return not self._reports

    def _write(self, now: Snapshot) -> None:
        with suppress(OSError):  # a failed write must not stop the run
            atomic_write_text(self._path, page(now, self._title, self._clock()))


def page(now: Snapshot, title: str, written: float) -> str:
    """Return the page."""
    reload = "" if now.ending else f'<meta http-equiv="refresh" content="{RELOAD_SECONDS}">\n'
    css = files("dropsearch.report.html").joinpath("page.css").read_text(encoding="utf-8")
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(written))
    still = "" if now.ending else _STILL % (written, CLOCKS_DIFFER, STILL_SECONDS)
    note = (
        f"Written at {at}."
        if now.ending
        else f"Written at {at}; the page is rewritten every {SECONDS_BETWEEN_PAGES:.0f} s and reloads itself. "
        "If this time stands still, the run has ended without a report."
    )
    return drawable(
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{MARK}\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n{reload}'
        f"<title>{100 * now.share:.0f} % {escape(title)}</title>\n<style>{css}{_STYLE}</style>\n</head>\n<body>\n"
        f'<header>\n<h1>{escape(title)}</h1>\n</header>\n<main>\n{body(now)}<p class="small">{note}</p>\n</main>\n'
        f"{still}</body>\n</html>\n"
    )


def body(now: Snapshot) -> str:
    """Return the body of the page: banner, stages, arms, curves and rates."""
    return "".join(_parts(now))


def _parts(now: Snapshot) -> Iterator[str]:
    yield f'<div class="answer" role="status">{escape(_banner(now))}'
    yield f'<div class="bar"><span style="width: {100 * now.share:.1f}%"></span></div></div>\n'
    yield f'<p class="left-to-do">{escape(_stages(now))}</p>\n'
    yield _table(now)
    if curves := curves_chart(now.state):
        yield f'<h2>Running trials</h2>\n<figure class="curves">{curves}'
        yield f"<figcaption>{escape(now.state.monitor.name)} by epoch, a line for each trial</figcaption></figure>\n"
    if charts := rate_charts(now.state):
        yield '<h2>Rates and score</h2>\n<div class="charts">\n'
        yield from (f"<figure>{svg}<figcaption>{escape(site)}</figcaption></figure>\n" for site, svg in charts.items())
        yield f'</div>\n<p class="small">{escape(_caption(now, len(charts)))}</p>\n'


def _caption(now: Snapshot, shown: int) -> str:
    sites = site_count(now.state)
    some = f" The first {shown} of {sites} sites are shown." if sites > shown else ""
    return (
        f"Each dot is a trial: its dropout rate, and its best {now.state.monitor.name}, in the color of its arm. Worse "
        f"trials than the axis reaches are at its edge.{some}"
    )


def _banner(now: Snapshot) -> str:
    if now.ending:
        return ENDED.get(now.ending, "The run is done.") + f" It took {duration(now.elapsed)}."
    counted = f": {now.done} of {now.total} {now.unit}" if now.unit and now.total else ""
    left = "" if now.left is None else f" About {duration(now.left)} left, {100 * now.share:.0f} % of the run is over."
    return f"{_capital(now.stage)}{counted}.{left}"


def _stages(now: Snapshot) -> str:
    """Return what happens now, and what is still to come."""
    if now.ending:
        return ""
    known = [f"{name} {duration(left)}" for name, left in now.parts.items() if left]
    lines = (_capital(now.work), f"Still to come: {', '.join(known)}" if known else "")
    return " ".join(f"{line}." for line in lines if line)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _table(now: Snapshot) -> str:
    name = now.state.monitor.name
    head = ("arm", f"best {name}", "done / pruned / failed", "training", "confirmed")
    cells = "".join(f"<th{_left(n)}>{escape(cell)}</th>" for n, cell in enumerate(head))
    rows = "".join(
        f"<tr>{''.join(f'<td{_left(n)}>{cell}</td>' for n, cell in enumerate(_row(arm, now)))}</tr>\n"
        for arm in now.state.arms.values()
    )
    table = f"<table>\n<thead><tr>{cells}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>"
    return f'<div class="wide" tabindex="0">\n{table}\n</div>\n'


def _left(column: int) -> str:
    return ' class="left"' if column == 0 else ""


def _row(arm: ArmState, now: Snapshot) -> tuple[str, ...]:
    style = "" if arm.name == "none" else f' style="background: {arm_style(arm.name).colour}"'
    swatch = f'<span class="arm"><span class="swatch"{style}></span>{escape(arm.name)}</span>'
    best = now.state.monitor.objective(arm.best.objective) if arm.best else math.nan
    counts = " / ".join(str(arm.ended.get(state, 0)) for state in ("COMPLETE", "PRUNED", "FAIL"))
    shown = "" if math.isnan(best) else short(best)
    return (swatch, shown, counts, str(len(arm.running)), str(arm.confirmed))


NOTEBOOK_STYLE = (
    "<style>.dropsearch .wide { overflow-x: auto } .dropsearch .left { text-align: left }"
    ".dropsearch .bar { height: .6rem; background: #ccc; margin: .5rem 0 } .dropsearch .bar span"
    " { display: block; height: 100%; background: #005fa3 } .dropsearch svg { max-width: 40rem; width: 100% }"
    ".dropsearch svg text { fill: currentColor; font-size: 11px }"
    ".dropsearch .axis { stroke: currentColor; fill: none }"
    ".dropsearch .swatch { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .4em;"
    " background: currentColor } .dropsearch .charts { display: grid;"
    " grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)) }</style>"
)


def in_notebook() -> bool:
    """Return whether this is a notebook kernel, which displays HTML."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


class NotebookDisplay(View):
    """A display that is updated every two seconds."""

    every = 2.0

    def __init__(self) -> None:
        self._handle: Any = None

    def draw(self, now: Snapshot) -> None:
        """Show the progress."""
        from IPython.display import HTML, display  # pyright: ignore[reportMissingImports]

        shown = HTML(f'{NOTEBOOK_STYLE}<div class="dropsearch">{body(now)}</div>')
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)

    def note(self, line: str) -> None:
        """Print a line below the display."""
        print(line)

    def close(self, now: Snapshot) -> None:
        """Show how the run ended."""
        if self._handle is not None:
            self.draw(now)
