"""What shows a run while it works: the page, the table of a terminal, the display of a notebook."""

from __future__ import annotations

import io
import re
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dropsearch.core.records import EpochMetrics, Monitor, TrialResult, TrialSpec
from dropsearch.report.progress import Forecast, Progress, Stage
from dropsearch.report.progress.charts import CURVES_WIDTH, LEFT, curves_chart, rate_charts
from dropsearch.report.progress.page import MARK, LivePage, NotebookDisplay, in_notebook
from dropsearch.report.progress.state import ArmState, Point, RunState
from dropsearch.report.progress.table import CELLS, LiveTable, strip
from dropsearch.report.progress.view import WORK
from tests.chromium import Chromium, file_url, missing
from tests.fake_clock import Clock

SITES = ("net.input.dropout", "net.<b>hidden</b>")
WRITTEN = 1_800_000_000.0
ARMS = ("none", "dropout", "batchnorm", "both", "dropout_shared", "typical")


def half_done(*views: Any, monitor: Monitor = Monitor()) -> tuple[Progress, Clock]:  # noqa: B008 - it is frozen
    """A run in the middle of its search, with trials that ended and trials that train."""
    clock = Clock()
    stages = [Stage("search", 6 * 30 * 10), Stage("confirm", 600, like="search"), Stage("evidence", 40, 1.0)]
    progress = Progress(Forecast(stages, clock), RunState(ARMS, 30, 10, 1.0, monitor), views, clock)
    progress.train("search", 180, is_search=True)
    for number in range(60):
        arm = ARMS[number % len(ARMS)]
        rates = {} if arm in ("none", "batchnorm") else dict.fromkeys(SITES, (number % 10) / 11)
        spec = TrialSpec(arm, number, number, rates, 1e-3, 0.0)
        curve = tuple(EpochMetrics(n, 0.5, 0.5, 1 / (n + 1) + number / 100) for n in range(10))
        for metrics in curve:
            clock.now += 0.1
            progress.epoch(spec, metrics)
        if number < 48:
            progress.end(TrialResult(spec, "PRUNED" if (number // 6) % 3 == 0 else "COMPLETE", curve, 1.0))
    return progress, clock


class Tags(HTMLParser):
    """Checks that what is opened is closed, and counts the tags."""

    VOID = ("meta", "br", "circle", "path", "polyline")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def written(tmp_path: Path, **kwargs: Any) -> tuple[Progress, Path]:
    path = tmp_path / "report.html"
    progress, clock = half_done(LivePage(path, "mlp on <digits>", lambda: WRITTEN), **kwargs)
    clock.now += 10
    progress._draw()
    return progress, path


def test_the_page_shows_arms_curves_rates_and_time_left(tmp_path: Path) -> None:
    _, path = written(tmp_path)
    text = path.read_text()
    tags = Tags(text)
    assert 'http-equiv="refresh"' in text
    assert "Search: 48 of 180 trials." in text
    assert re.search(r"About \d+ (s|min) left, \d+ % of the run is over", text)
    assert "mlp on &lt;digits&gt;" in text
    assert "net.&lt;b&gt;hidden&lt;/b&gt;" in text
    assert tags.count["tr"] == 1 + len(ARMS)
    assert tags.count["polyline"] == 12  # a curve for each trial that trains
    assert tags.count["svg"] == 1 + len(SITES)
    assert "nan" not in text


def test_trials_that_have_begun_are_shown_before_their_first_epoch(tmp_path: Path) -> None:
    view = LivePage(tmp_path / "report.html", "x")
    progress = Progress(Forecast([Stage("search", 10)]), RunState(("dropout",), 10), [view])
    progress.train("search", 10, is_search=True)
    progress.asked([TrialSpec("dropout", number, number, {}, 1e-3, 0.0) for number in range(3)])
    progress.begin("search", 10, "trials")
    assert re.search(r"<td>0 / 0 / 0</td><td>3</td><td>0</td>", (tmp_path / "report.html").read_text())
    assert progress.state.current == "dropout"


def test_the_page_says_what_happens_now(tmp_path: Path) -> None:
    progress, path = written(tmp_path)
    assert "Each arm tries settings. Still to come: search" in path.read_text()
    progress.begin("evidence", 40, "models")
    text = path.read_text()
    assert "Evidence: 0 of 40 models." in text
    assert "What dropout does in the winners is measured; evidence=off leaves it out. Still to come: " in text


def test_curves_begin_at_their_first_epoch() -> None:
    progress, _ = half_done()
    first, *_, last = re.findall(r"[\d.]+(?=,)", curves_chart(progress.state).split('points="')[1].split('"')[0])
    assert (float(first), float(last)) == (LEFT, CURVES_WIDTH - 6)


def test_many_sites_and_trials_keep_the_page_small(tmp_path: Path) -> None:
    progress, _ = half_done(LivePage(tmp_path / "report.html", "x"))
    rates = {f"model.encoder.layers.{n}.feed_forward.activation_dropout": n / 30 for n in range(25)}
    for arm in ARMS:
        progress.state.arms[arm].points[:] = [Point(rates, 1 / (n + 1), "COMPLETE") for n in range(3000)]
    progress.begin("confirm", 10, "retrainings")
    text = (tmp_path / "report.html").read_text()
    assert len(text) < 600_000
    assert "The first 12 of 25 sites are shown." in text


def test_the_page_of_a_killed_run_says_so(tmp_path: Path) -> None:
    if gone := missing():
        pytest.skip(f"{' and '.join(gone)} not installed")
    _, path = written(tmp_path)
    copied = tmp_path / "elsewhere" / "copied.html"
    copied.parent.mkdir()
    copied.write_bytes(path.read_bytes())
    with Chromium() as browser:
        still = "This page has not been written for"
        # The machine's clock may differ from the browser's by hours.
        for seconds, seen, shown in (
            (3 * 3600, 0, "Search: 48 of 180 trials."),
            (3 * 3600, 200, f"{still} 3 min"),
            (-3 * 3600, 0, "Search: 48 of 180 trials."),
            (30 * 3600, 0, f"{still} 30 h"),
        ):
            stamp = f"{time.time() - seconds:.0f}"
            copied.write_text(path.read_text().replace(f"{WRITTEN:.0f}", stamp))
            known = f"{{written: {stamp}, at: Date.now() / 1000 - {seen}}}" if seen else "null"
            earlier = f"sessionStorage.setItem('dropsearch ' + location.pathname, JSON.stringify({known}))"
            # Before the page's own script: what one page stores, the next does not always find at once.
            kept = browser.command("Page.addScriptToEvaluateOnNewDocument", source=earlier)
            browser.open(file_url(copied))
            browser.command("Page.removeScriptToEvaluateOnNewDocument", **kept)
            assert browser.run("return document.querySelector('.answer').innerText").startswith(shown)
        assert "Still to come" not in browser.run("return document.body.innerText")
        browser.screen(390, 844, phone=True)
        assert browser.run("const it = document.querySelector('.wide'); return it.scrollWidth <= it.clientWidth")


def test_the_page_exists_when_the_first_stage_begins(tmp_path: Path) -> None:
    progress = Progress(Forecast([Stage("search", 10)]), RunState(ARMS), [LivePage(tmp_path / "report.html", "x")])
    progress.train("search", 10, is_search=True)
    assert MARK in (tmp_path / "report.html").read_text()


def test_the_report_is_not_overwritten(tmp_path: Path) -> None:
    progress, path = written(tmp_path)
    progress.begin("report")
    path.write_text("the report")
    progress.begin("tracking")
    progress._draw()
    progress.close("stopped")
    assert path.read_text() == "the report"


@pytest.mark.parametrize("stage", ["confirm", "report"])
def test_a_run_that_failed_reloads_no_more(stage: str, tmp_path: Path) -> None:
    progress, path = written(tmp_path)
    progress.begin(stage)
    progress.close("failed")
    text = path.read_text()
    assert "The run failed." in text
    assert "refresh" not in text


def test_a_page_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    half_done(LivePage(tmp_path / "gone" / "report.html", "x"))[0].close("failed")


def test_the_page_shows_what_is_monitored(tmp_path: Path) -> None:
    _, path = written(tmp_path, monitor=Monitor("val_f1", "max"))
    assert "best val_f1" in path.read_text()
    assert "<td>-0.1600</td>" in path.read_text()  # what is minimised is 0.16


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_a_terminal(width: int) -> None:
    pytest.importorskip("rich")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    table = LiveTable(stream, width)
    progress, _ = half_done(table)
    for stage in WORK:
        progress.begin(stage, 3000, "models")
        table._console.print(table._table(progress.snapshot()))
    progress.close("done")
    stream.flush()
    text = stream.buffer.getvalue().decode()  # type: ignore[attr-defined]
    shown = text.splitlines()
    assert max(map(len, shown)) <= width
    assert "dropout_shared" in text
    assert all(work in text for work in WORK.values())
    assert "…" not in text


def test_the_table_of_a_long_study_with_large_values_fits() -> None:
    pytest.importorskip("rich")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    table = LiveTable(stream, 80)
    progress, _ = half_done(table)
    progress.state.n_trials = 3000
    for arm in progress.state.arms.values():
        arm.ended.update(COMPLETE=2800, PRUNED=150)
        arm.best = Point({}, -1234.5678, "COMPLETE")
    table._console.print(table._table(progress.snapshot()))
    stream.flush()
    text = stream.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert "…" not in text
    assert re.search(r"dropout_shared +2958/3000 +153 +\d+ +0 +-1234.6", text)
    assert max(map(len, text.splitlines())) <= 80


def test_a_strip_shows_where_good_rates_are() -> None:
    points = [Point({"a": 0.1}, 0.1, "COMPLETE"), *(Point({"a": 0.9}, 1.0, "COMPLETE") for _ in range(3))]
    found = strip(ArmState("dropout", points=points))
    assert len(found) == CELLS
    assert found.index("●") == 1
    assert found.replace("●", " ").strip() == ""


@pytest.mark.parametrize("rates", [{}, {"a": 0.0}])
def test_an_arm_without_dropout_has_no_strip_and_no_dots(rates: dict[str, float]) -> None:
    progress, _ = half_done()
    progress.state.arms = {"none": ArmState("none", points=[Point(rates, 0.1, "COMPLETE")])}
    assert strip(progress.state.arms["none"]) == ""
    assert rate_charts(progress.state) == {}


class Handle:
    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, html: Any) -> None:
        self.shown.append(html.data)


def test_a_notebook_gets_one_display_that_is_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("IPython")
    handle = Handle()
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: handle)
    progress, _ = half_done(NotebookDisplay())
    progress.begin("evidence", 40, "models")
    progress.close("done")
    assert "Evidence: 0 of 40 models" in handle.shown[-2]
    assert "The run is done." in handle.shown[-1]


def test_a_kernel_is_a_notebook_and_a_terminal_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for shell, expected in ((SimpleNamespace(kernel=1), True), (SimpleNamespace(), False), (None, False)):
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda shell=shell: shell))
        assert in_notebook() is expected
