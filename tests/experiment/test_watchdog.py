"""Trials that stand still are named after a stated time, and a process that waits for ever is ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from dropsearch.core.processes import descendants, processor_time
from dropsearch.core.records import EpochMetrics, TrialResult
from dropsearch.experiment import watchdog
from dropsearch.experiment.watchdog import HeardFeed, Watchdog
from dropsearch.training.multiprocess import ProcessEngine, can_fork
from tests.training.conftest import Queue, make_specs


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("dropsearch.core.processes.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of processor time of every process."""
    seconds = [1.0]
    monkeypatch.setattr("dropsearch.core.processes.processor_time", lambda pid: seconds[0])
    return seconds


class Processes:
    """Two processes, each with a trial."""

    def __init__(self, *keys: str) -> None:
        self.trains = {4000 + index: [key] for index, key in enumerate(keys)}
        self.ended: dict[int, str] = {}

    def processes(self) -> dict[int, list[str]]:
        return dict(self.trains)

    def end_process(self, pid: int, why: str) -> None:
        self.ended[pid] = why
        del self.trains[pid]


def test_trials_are_named_with_their_stage(clock: list[float], used: list[float]) -> None:
    dog = Watchdog()
    feed = HeardFeed(Queue(make_specs("mlp", 3)), dog)
    first, second = feed.ask(2)
    feed.report([(first, EpochMetrics(4, 1.0, 1.0, 1.0))])
    for clock[0] in range(0, int(watchdog.STALL), 5):
        used[0] += 1.0
        assert not dog.look()
    clock[0], used[0] = watchdog.STALL + 1, used[0] + 1
    (said,) = dog.look()
    assert f"{first.key} (after epoch 5), {second.key} (before its first epoch ended);" in said
    used[0] += 1
    assert not dog.look(), "said once, then after twice the time"
    clock[0], used[0] = 2 * watchdog.STALL + 1, used[0] + 1
    assert re.search("for 601 s", *dog.look())


def test_what_ends_is_not_waited_for(clock: list[float]) -> None:
    dog = Watchdog()
    feed = HeardFeed(Queue(make_specs("mlp", 1)), dog)
    (spec,) = feed.ask(1)
    feed.tell([TrialResult(spec, "COMPLETE", (), 1.0)])
    clock[0] = 10 * watchdog.STALL
    assert not dog.look()


def test_this_process_is_named_and_lives_on(clock: list[float], used: list[float]) -> None:
    dog = Watchdog()
    (spec,) = HeardFeed(Queue(make_specs("mlp", 1)), dog).ask(1)
    assert not dog.look()
    clock[0] = watchdog.QUIET + 1
    (said,) = dog.look()
    assert said == (
        f"process {os.getpid()} makes no progress: no processor time for 61 s while it trains {spec.key} (before its "
        "first epoch ended); Ctrl-C stops the run"
    )
    assert not dog.look()
    used[0] += 1
    assert not dog.look()
    clock[0] = 2 * watchdog.QUIET + 2
    assert "no processor time for 61 s" in dog.look()[0], "named again after it moved"


def test_only_the_process_without_progress_is_ended(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Queue(make_specs("mlp", 2))
    stuck, working = (spec.key for spec in feed.specs)
    processes = Processes(stuck, working)
    monkeypatch.setattr("dropsearch.core.processes.processor_time", lambda pid: 1.0 if pid == 4000 else clock[0])
    dog = Watchdog(processes)
    heard = HeardFeed(feed, dog)
    specs = heard.ask(2)
    said = []
    for clock[0] in range(0, int(watchdog.STALL) + 10, 5):
        said += dog.look()
        heard.report([(specs[1], EpochMetrics(0, 1.0, 1.0, 1.0))])
    (line,) = said
    assert re.fullmatch(r"process 4000 makes no progress: .*; it is ended after 300 s", line)
    assert {*processes.ended} == {4000}


def test_a_process_of_which_nothing_is_known_is_left_alone(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dropsearch.core.processes.processor_time", lambda pid: None)
    feed = Queue(make_specs("mlp", 1))
    processes = Processes(feed.specs[0].key)
    dog = Watchdog(processes)
    HeardFeed(feed, dog).ask(1)
    for clock[0] in range(0, 3 * int(watchdog.STALL), 5):
        dog.look()
    assert not processes.ended


def test_the_line_is_printed_while_trials_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    said = threading.Event()
    monkeypatch.setattr(watchdog, "LOOK", 0.01)
    dog = Watchdog()
    monkeypatch.setattr(dog, "look", lambda: said.set() or [])
    with dog.watching():
        assert said.wait(300)


def test_an_error_of_a_look_is_told_once_and_the_next_look_follows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks, enough = [0], threading.Event()
    monkeypatch.setattr(watchdog, "LOOK", 0.01)
    dog = Watchdog()

    def look() -> list[str]:
        looks[0] += 1
        if looks[0] > 2:
            enough.set()
            return []
        raise ProcessLookupError("no such process")

    monkeypatch.setattr(dog, "look", look)
    with dog.watching():
        assert enough.wait(300)
    (line,) = capsys.readouterr().err.splitlines()
    assert "continues: ProcessLookupError: no such process" in line


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc of Linux")
@pytest.mark.parametrize("works", [True, False])
def test_a_process_that_waits_for_its_workers_is_ended_only_if_they_stand_still(
    works: bool, clock: list[float]
) -> None:
    work = "[sum(range(10_000)) for _ in iter(int, 1)]" if works else "time.sleep(1000)"
    wait = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    with subprocess.Popen([sys.executable, "-c", wait, f"import time; print(1, flush=True); {work}"], stdout=-1) as it:
        try:
            assert it.stdout is not None
            it.stdout.readline()
            processes = Processes()
            processes.trains[it.pid] = ["a"]
            dog = Watchdog(processes)
            worked = lambda: sum(processor_time(pid) or 0.0 for pid in descendants(it.pid))  # noqa: E731
            dog.look()
            for clock[0] in (watchdog.STALL - 1, watchdog.STALL + 1):
                before = worked()
                while works and worked() < before + 0.25:
                    time.sleep(0.02)
                dog.look()
            assert (it.pid in processes.ended) is not works
        finally:
            for pid in (*descendants(it.pid), it.pid):
                os.kill(pid, signal.SIGKILL)


class Stuck:
    """Waits for ever in its first trial, works in the others."""

    description = ""

    def describe(self, processes: int) -> str:
        return ""

    def run(self, feed: Any) -> None:
        while specs := feed.ask(1):
            if specs[0].number == 0:
                time.sleep(1000)
            feed.tell([TrialResult(specs[0], "COMPLETE", (), 0.0)])

    def close(self) -> None: ...


@pytest.mark.skipif(not can_fork(), reason="processes are forked on Linux without CUDA only")
def test_a_deadlocked_process_is_named_and_its_trial_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(watchdog, "QUIET", 0.2)
    monkeypatch.setattr(watchdog, "STALL", 0.6)
    monkeypatch.setattr(watchdog, "LOOK", 0.05)
    feed, engine = Queue(make_specs("mlp", 3)), ProcessEngine(Stuck(), 1)
    dog = Watchdog(engine)
    try:
        with dog.watching():
            engine.run(HeardFeed(feed, dog))
    finally:
        engine.close()
    assert [feed.results[number].state for number in range(3)] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert "no progress for" in feed.results[0].reason
    assert "makes no progress: no processor time for" in capsys.readouterr().err
