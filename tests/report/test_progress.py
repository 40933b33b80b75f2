from __future__ import annotations

import io
from dataclasses import replace

import pytest

from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.report import Progress


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def ended(arm="dropout", val_loss=0.5, state="COMPLETE", phase="search"):
    spec = TrialSpec(arm, 0, 0, {}, 1e-3, 0.0, phase=phase)
    return TrialResult(spec, state, (EpochMetrics(0, 0.4, 0.5, val_loss),), 1.0)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log():
    return io.StringIO()


def run(log, clock, trials, seconds, **kwargs):
    with Progress(trials, log, clock=clock, **kwargs) as progress:
        for _ in range(trials - kwargs.get("initial", 0)):
            clock.now += seconds
            progress.end(ended())
    return log.getvalue().splitlines()


def test_a_line_tells_done_total_best_arm_speed_and_time_left(log, clock):
    progress = Progress(20, log, clock=clock)
    progress.phase("search")
    clock.now += 30
    progress.end(ended("both", 0.25))
    assert log.getvalue().splitlines() == [
        "[search]",
        "search both 1/20 trials (5 %), best 0.2500 (both), 2.0 trials/min, 9:30 left",
    ]


def test_a_log_has_no_carriage_returns(log, clock):
    run(log, clock, 50, 1)
    assert "\r" not in log.getvalue()


def test_a_fast_run_prints_one_line_for_each_tenth(log, clock):
    lines = run(log, clock, 1000, 0.001)
    assert len(lines) == 11
    assert "1000/1000 trials (100 %)" in lines[-1]


def test_a_slow_run_prints_at_most_one_line_for_each_trial(log, clock):
    assert len(run(log, clock, 40, 300)) == 40


def test_a_run_of_many_trials_prints_about_a_hundred_lines_however_long_it_takes(log, clock):
    assert len(run(log, clock, 5000, 60)) <= 112


def test_a_continued_run_counts_what_was_done_but_not_for_its_speed(log, clock):
    lines = run(log, clock, 20, 60, initial=18)
    assert "19/20 trials (95 %)" in lines[0]
    assert "1.0 trials/min, 1:00 left" in lines[0]


def test_the_best_so_far_is_that_of_complete_trials_of_the_search(log, clock):
    progress = Progress(4, log, clock=clock)
    progress.end(ended(val_loss=0.5))
    progress.end(ended(val_loss=0.1, state="PRUNED"))
    progress.end(ended(val_loss=0.2, phase="confirm"))
    progress.end(ended("none", val_loss=0.6))
    assert "best 0.5000 (dropout)" in log.getvalue().splitlines()[-1]


def test_a_repetition_of_the_search_counts_and_is_no_best(log, clock):
    bar = Progress(2, log, clock=clock)
    bar.phase("repeat 2")
    again = ended("none", 0.1)
    bar.end(replace(again, spec=replace(again.spec, repeat=2)))
    assert "repeat 2 none 1/2 trials" in log.getvalue()
    assert "best" not in log.getvalue()


def test_a_trial_without_a_finite_loss_is_counted(log, clock):
    Progress(1, log, clock=clock).end(ended(val_loss=float("nan"), state="FAIL"))
    assert log.getvalue().startswith("dropout 1/1 trials (100 %)")


def test_more_trials_than_planned_raise_the_total(log, clock):
    progress = Progress(1, log, clock=clock)
    progress.end(ended())
    progress.end(ended())
    assert "2/2 trials (100 %)" in log.getvalue()


def test_closing_an_interrupted_log_says_where_it_stopped(log, clock):
    progress = Progress(100, log, clock=clock)
    for _ in range(5):
        progress.end(ended())
    progress.close()
    progress.close()
    lines = log.getvalue().splitlines()
    assert ["1/100" in lines[0], "5/100" in lines[-1], len(lines)] == [True, True, 2]


def test_a_run_of_nothing_can_be_closed(log, clock):
    Progress(0, log, clock=clock).close()
    assert log.getvalue() == ""


def test_a_terminal_gets_one_bar(clock):
    terminal = Terminal()
    with Progress(4, terminal, clock=clock) as progress:
        progress.phase("confirm")
        clock.now += 60
        progress.end(ended("both", 0.25))
        progress.note("trial 3 of both failed: out of memory")
    shown = terminal.getvalue()
    assert "\r" in shown
    assert "confirm both  25%|" in shown
    assert "1/4, best 0.2500 (both)" in shown
    assert "trial 3 of both failed: out of memory\n" in shown


def test_a_note_is_a_line_of_its_own_in_a_log(log, clock):
    Progress(4, log, clock=clock).note("heads up")
    assert log.getvalue() == "heads up\n"
