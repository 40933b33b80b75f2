"""Names of studies, classes, sites and metrics are words everywhere: never markup, control characters or lines."""

from __future__ import annotations

import dataclasses
import re
import unicodedata

import pytest
from markdown_it import MarkdownIt

from dropsearch.core.records import ComparisonMetric, Monitor, Site
from dropsearch.report.figures.axes import score_label
from dropsearch.report.figures.registry import Figure
from dropsearch.report.html.page import page
from dropsearch.report.markdown import markdown
from dropsearch.report.tables.table import Table
from dropsearch.report.terminal import closing, opening
from tests.chromium import Chromium, file_url, missing

HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e\u2066|`x`\n# [a](b) ![i](j) \x00" + "n" * 300


@pytest.fixture
def hostile(make):
    sites = (Site(HOSTILE, "hidden", 0.1, 10), Site("b", "input", 0.1, 10))
    monitor = Monitor(HOSTILE, "max")
    metric = ComparisonMetric(HOSTILE, "val_loss", HOSTILE, percent=False, higher_is_better=True)
    names = dict.fromkeys(("study", "model", "data", "engine"), HOSTILE)
    return make.summary(
        sites=sites,
        monitor=monitor,
        comparison_metric=metric,
        notes=(HOSTILE,),
        config={"study": {"name": HOSTILE}, "output_dir": HOSTILE},
        commands={"continue": HOSTILE},
        tracking={"tracking_uri": "sqlite:///x.db", "experiment": HOSTILE},
        **names,
    )


def has_controls(text: str) -> bool:
    return any(unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} for c in text if c not in "\n\t")


def test_the_terminal_gets_no_control_characters(hostile) -> None:
    for text in (closing(hostile), opening(HOSTILE, {"data": HOSTILE})):
        assert "\\x1b[31m\\u202e" in text
        assert not has_controls(text)


def test_lines_of_the_terminal_fit_it(hostile) -> None:
    without_commands = dataclasses.replace(hostile, commands={})  # which can be copied, so they are not wrapped
    for text in (closing(without_commands), opening(HOSTILE, {"data": HOSTILE, "n" * 20: HOSTILE})):
        assert max(map(len, text.splitlines())) <= 80, max(text.splitlines(), key=len)


def test_tables_of_long_names_fit_a_terminal() -> None:
    long = "m" * 300
    rows = ((long, long, "-1.23 (-2.34 to -0.12) points"), ("a", "b", "0"))
    lines = Table(long, ("site", "arms", f"confirmed\n{long}"), rows, ("site", "arms")).as_text().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[-2].endswith("-1.23 (-2.34 to -0.12) points"), "numbers stay whole"


def test_markdown_has_no_markup_of_a_name(hostile) -> None:
    text = markdown(hostile)
    assert not has_controls(text)
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert "<script" not in html
    assert "<img" not in html
    assert not re.search(r'href="b"', html)
    assert "# [a](b)" in html, "it is shown as it is"


def test_the_page_has_no_markup_of_a_name(hostile) -> None:
    text = page(hostile)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert not has_controls(text)


def test_names_of_any_length_fit_a_phone(hostile, tmp_path) -> None:
    if gone := missing():
        pytest.skip(f"{' and '.join(gone)} not installed")
    svg = '<svg viewBox="0 0 400 100"><text x="0" y="20">loss</text></svg>'
    long = Figure("curves", tmp_path / "curves.png", HOSTILE, HOSTILE, svg)
    (tmp_path / "report.html").write_text(page(hostile, [long]))
    with Chromium() as browser:
        browser.screen(390, 844, phone=True)
        browser.open(file_url(tmp_path / "report.html"))
        widths = browser.run("const it = document.documentElement; return [it.scrollWidth, it.clientWidth]")
    assert widths[0] <= widths[1]


def test_an_axis_has_a_short_label(hostile) -> None:
    assert len(score_label(hostile)) <= 80
