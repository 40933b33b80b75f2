"""What is left on a terminal of few rows at the end of a run."""

from __future__ import annotations

from dataclasses import replace

from dropsearch.report.terminal import closing
from tests.report.conftest import DEFAULT_SITES

COMMANDS = {"reload": "python -c 1", "retrain": "python -m dropsearch --config-dir best", "continue": "python -m x"}
GIVEN = {"commands": COMMANDS, "config": {"output_dir": "outputs/here"}}


def visible(text: str, rows: int) -> str:
    return "\n".join(text.splitlines()[-(rows - 1) :])


def test_the_answer_and_the_table_of_arms_stay_on_a_screen_of_24_rows(make):
    summary = make.summary(**GIVEN)
    text = closing(summary, 24)
    assert len(text.splitlines()) <= 24  # the empty row above may scroll off
    shown = visible(text, 24)
    assert shown.lstrip("\n").startswith("Use dropout")
    assert "Arms: " in shown
    assert "both  " in shown
    assert "outputs/here" in shown
    assert "load and train" in shown


def test_a_high_terminal_and_a_log_show_everything(make):
    summary = make.summary(**GIVEN)
    assert closing(summary, 80) == closing(summary)
    assert all(command in closing(summary) for command in COMMANDS.values())


def test_the_table_scrolls_off_before_the_answer(make):
    summary = make.summary(**GIVEN)
    text = closing(summary, 16)
    assert text.index("Arms: ") < text.index("Use dropout")
    assert "Use dropout" in visible(text, 16)


def test_the_command_that_continues_stays(make):
    text = closing(make.summary(complete=False, **GIVEN), 24)
    assert text.endswith(COMMANDS["continue"])
    assert COMMANDS["retrain"] not in text


def test_the_rates_stay_where_the_answer_refers_to_their_table(make):
    sites = tuple(replace(DEFAULT_SITES[0], name=f"block{index}.dropout") for index in range(12))
    summary = make.summary(("none", "dropout"), sites=sites, **GIVEN)
    shown = visible(closing(summary, 24), 24)
    assert "12 sites (table below)" in shown
    assert "block0" in shown
    assert "report.md (the arms, and commands" in shown
