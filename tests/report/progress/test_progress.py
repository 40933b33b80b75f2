from __future__ import annotations

import io
import time
from dataclasses import replace

import pytest

from dropsearch.core.records import EpochMetrics, Monitor, TrialResult, TrialSpec
from dropsearch.report.progress import Forecast, Progress, Stage, in_all
from dropsearch.report.progress.lines import Lines
from dropsearch.report.progress.state import RunState
from dropsearch.report.progress.table import LiveTable
from tests.fake_clock import Clock


def ended(arm="dropout", val_loss=0.5, state="COMPLETE", phase="search", epochs=1):
    spec = TrialSpec(arm, 0, 0, {}, 1e-3, 0.0, phase=phase)
    return TrialResult(spec, state, tuple(EpochMetrics(n, 0.4, 0.5, val_loss) for n in range(epochs)), 1.0)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log():
    return io.StringIO()


def progress_of(log, clock, trials, *, epochs=1, after=(), monitor=Monitor()):  # noqa: B008 - it is frozen
    stages = [Stage("search", trials * epochs), *after]
    return Progress(Forecast(stages, clock), RunState((), trials, epochs, 1.0, monitor), [Lines(log)], clock)


def train(progress, clock, trials, seconds, epochs=1):
    for _ in range(trials):
        result = ended(epochs=epochs)
        for metrics in result.curve:
            clock.now += seconds / epochs
            progress.epoch(result.spec, metrics)
        progress.end(result)


def test_a_line_tells_done_total_best_arm_speed_and_time_left(log, clock):
    progress = progress_of(log, clock, 20)
    progress.train("search", 20, is_search=True)
    clock.now += 30
    result = ended("both", 0.25)
    progress.epoch(result.spec, result.curve[0])
    progress.end(result)
    assert log.getvalue().splitlines() == [
        "[search] each arm tries settings",
        "[plan] about 10 min in all: search 10 min",
        "search both 1/20 trials, 2.0/min, best 0.2500 (both), run 5 %, 9:30 left",
    ]


def test_a_wait_is_left_out_of_the_speed_alone(clock):
    progress = Progress(Forecast([Stage("confirm", 20, 1.0)], clock), RunState((), 20, 1, 1.0), (), clock)
    progress.train("confirm", 20)
    for _ in range(2):  # in each arm workers start first
        clock.now += 30
        progress.skip_wait()
        train(progress, clock, 5, 6.0)
        assert progress.snapshot().per_minute == pytest.approx(10)


def test_trials_of_other_processes_count_as_done(log, clock):
    progress = progress_of(log, clock, 20)
    progress.train("search", 20, is_search=True)
    searched = [ended() for _ in range(9)]
    for new in ((), searched[:5], (), searched[5:]):
        progress.elsewhere(new)
    retrained = [ended(phase="confirm") for _ in range(2)]
    progress.elsewhere(retrained[:1])  # a process that is ahead
    train(progress, clock, 1, 60.0)
    assert (progress.snapshot().done, progress.snapshot().total) == (10, 20)
    progress.train("confirm", 4)
    progress.elsewhere(retrained[1:])
    assert (progress.snapshot().done, progress.snapshot().total) == (1, 4)
    arm = progress.state.arms["dropout"]
    assert (sum(arm.ended.values()), arm.confirmed) == (10, 2), "the table counts them too"


def test_lines_are_ten_seconds_apart(log, clock):
    progress = progress_of(log, clock, 1000)
    progress.train("search", 1000, is_search=True)
    train(progress, clock, 100, 1.0)
    assert len([line for line in log.getvalue().splitlines() if line.startswith("search")]) == 10


def test_the_share_counts_what_comes_after_the_search(log, clock):
    progress = progress_of(log, clock, 10, after=[Stage("evidence", 10, 9.0), Stage("report", 1, 10.0)])
    progress.train("search", 10, is_search=True)
    train(progress, clock, 10, 10.0)
    assert "search dropout 10/10 trials, 6.0/min, best 0.5000 (dropout), run 50 %, 1:40 left" in log.getvalue()


def test_evidence_has_a_bar_and_says_how_to_leave_it_out(log, clock):
    progress = progress_of(log, clock, 0, after=[Stage("evidence", 10, 9.0)])
    progress.begin("evidence", 10, "models")
    clock.now += 20
    progress.step()
    assert log.getvalue().splitlines()[0] == (
        "[evidence] what dropout does in the winners is measured; evidence=off leaves it out"
    )
    assert "evidence 1/10 models, 3.0/min, run 1" in log.getvalue()


def test_no_line_says_100_percent_or_nothing_left_while_work_remains(log, clock):
    progress = progress_of(log, clock, 10, after=[Stage("report", 1, 0.0)])
    progress.train("search", 10, is_search=True)
    train(progress, clock, 10, 10.0)
    progress.begin("report")
    clock.now += 50
    progress.step(0)
    assert "100 %" not in log.getvalue()


def test_the_last_table_of_a_run_says_that_it_is_done(clock):
    stream = io.StringIO()
    progress = Progress(Forecast([Stage("tracking", 1, 3.0)], clock), RunState(()), [LiveTable(stream, 80)], clock)
    progress.begin("tracking")
    progress.close()
    assert stream.getvalue().splitlines()[-1].strip() == "done"


def test_pruned_trials_shorten_the_estimate(log, clock):
    progress = progress_of(log, clock, 100, epochs=10)
    progress.train("search", 100, is_search=True)
    for _ in range(50):
        train(progress, clock, 1, 5.0, epochs=5)
    assert progress.forecast.left() == pytest.approx(250, rel=0.15)


def test_epochs_of_trials_that_train_are_done(log, clock):
    progress = progress_of(log, clock, 2, epochs=10)
    progress.train("search", 2, is_search=True)
    for epoch in range(5):
        clock.now += 1
        progress.epoch(ended().spec, EpochMetrics(epoch, 0.4, 0.5, 0.5))
    assert progress.forecast.left() == pytest.approx(15)


def test_the_best_so_far_is_that_of_complete_trials_of_the_search(log, clock):
    progress = progress_of(log, clock, 4)
    progress.end(ended(val_loss=0.5))
    progress.end(ended(val_loss=0.1, state="PRUNED"))
    progress.end(ended(val_loss=0.2, phase="confirm"))
    progress.end(ended("none", val_loss=0.6))
    assert progress.snapshot().best == (0.5, "dropout")


def test_a_repetition_of_the_search_is_no_best(log, clock):
    progress = progress_of(log, clock, 2)
    again = ended("none", 0.1)
    progress.end(replace(again, spec=replace(again.spec, repeat=2)))
    assert progress.snapshot().best is None


def test_the_best_is_shown_as_the_monitor_has_it(log, clock):
    progress = progress_of(log, clock, 2, monitor=Monitor("val_f1", "max"))
    progress.train("search", 2, is_search=True)
    clock.now += 1
    progress.end(ended(val_loss=-0.9))
    assert "best 0.9000" in log.getvalue()


def test_a_trial_without_a_finite_loss_is_counted(log, clock):
    progress = progress_of(log, clock, 1)
    progress.end(ended(val_loss=float("nan"), state="FAIL"))
    assert progress.state.arms["dropout"].ended == {"FAIL": 1}


def test_more_trials_than_planned_raise_the_total(log, clock):
    progress = progress_of(log, clock, 1)
    progress.train("search", 1, is_search=True)
    train(progress, clock, 2, 1.0)
    assert (progress.snapshot().done, progress.snapshot().total) == (2, 2)


def test_closing_an_interrupted_log_says_where_it_stopped(log, clock):
    progress = progress_of(log, clock, 100)
    progress.train("search", 100, is_search=True)
    train(progress, clock, 5, 1.0)
    progress.close("stopped")
    progress.close("stopped")
    assert log.getvalue().splitlines()[-1].startswith("search dropout 5/100 trials")


def test_a_run_of_nothing_can_be_closed(log, clock):
    progress_of(log, clock, 0).close()
    assert log.getvalue() == ""


def test_a_note_has_its_own_line(log, clock):
    progress_of(log, clock, 4).note("heads up")
    assert log.getvalue() == "heads up\n"


def test_a_view_is_drawn_while_nothing_ends(monkeypatch):
    monkeypatch.setattr("dropsearch.report.progress.progress.TICK", 0.01)
    view = Lines(io.StringIO())
    drawn = []
    view.draw = drawn.append
    view.every = 0.0
    with Progress(views=[view]) as progress:
        progress.begin("evidence", 3, "models")
        progress.start()
        deadline = time.monotonic() + 300
        while len(drawn) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(drawn) >= 3


def test_the_plan_has_the_duration_of_each_stage():
    assert (
        in_all({"search": 60.0, "confirm": 3600.0, "report": 0.1}) == "about 1 h 1 min in all: search 60 s, confirm 1 h"
    )
    assert in_all({"search": None, "report": 5.0}) == ""


def test_a_stage_that_goes_on_is_announced_once(log, clock):
    progress = progress_of(log, clock, 20)
    for _ in range(3):  # the turns of a budget
        progress.train("search", 4, is_search=True)
        train(progress, clock, 4, 6.0)
    progress.train("confirm", 4)
    assert [line for line in log.getvalue().splitlines() if line.startswith("[")].count(
        "[search] each arm tries settings"
    ) == 1
    assert "[confirm]" in log.getvalue()
