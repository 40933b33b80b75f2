"""A process that crashes while it trains: the next run names the trial, fails it, and goes on."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from dropsearch.core.processes import crash_of, crashes_noted, exits_as_errors, forget_crashes
from dropsearch.core.records import TrialSpec
from dropsearch.study.search_feed import SearchFeed
from dropsearch.study.storage import open_storage
from dropsearch.study.store import StudyStore
from tests.study.conftest import ended, make_feed


def crashes() -> None:
    ctypes.string_at(0)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_a_process(folder: Path, count: int, die: Callable[[], None]) -> None:
    """Ask for trials in a process of its own, tell the first and die while the others train."""
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        with crashes_noted(folder):
            feed = feed_in(folder)
            specs = feed.ask(count + 1)
            feed.tell([ended(specs[0])])
            die()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) < 0


def feed_in(folder: Path) -> SearchFeed:
    storage = open_storage(None, folder / "study.journal")
    crash = partial(crash_of, folder)
    return make_feed(
        StudyStore(storage, "s/dropout", arm="dropout", phase="search", fingerprint={}, crash_of=crash), total=6
    )


def train_all(feed: SearchFeed, width: int) -> list[list[int]]:
    """Train all trials of a feed, `width` at a time as an engine does; return the indices that trained together."""
    together: list[list[int]] = []
    while True:
        while specs := feed.ask(width):
            together.append([index_of(feed, spec) for spec in specs])
            assert not feed.ask(width - len(specs)) if len(specs) < width and feed.held else True
            feed.tell([ended(spec) for spec in specs])
        if not feed.held:
            return together


def index_of(feed: SearchFeed, spec: TrialSpec) -> int:
    return feed.store.seen.get(spec.number).user_attrs["index"]


def test_the_only_trial_of_a_crashed_process_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    in_a_process(tmp_path, 1, crashes)
    feed = feed_in(tmp_path)
    assert capsys.readouterr().err == ("trial 1 of s/dropout crashed the last run and has failed: Segmentation fault\n")
    train_all(feed, 3)
    results = feed.store.results()
    assert [result.spec.number for result in results] == list(range(6))
    assert [result.state for result in results].count("FAIL") == 1
    assert results[1].reason == "its process died: Segmentation fault"


def test_each_of_the_vectorized_trials_is_retrained_sequentially(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    in_a_process(tmp_path, 3, crashes)
    feed = feed_in(tmp_path)
    assert "one of the trials 1, 2, 3 of s/dropout crashed the last run" in capsys.readouterr().err
    assert train_all(feed, 3) == [[1], [2], [3], [4, 5]]
    assert [result.state for result in feed.store.results()] == ["COMPLETE"] * 6
    assert not feed.held


def test_a_killed_process_is_no_crash(tmp_path: Path) -> None:
    in_a_process(tmp_path, 1, killed)
    feed = feed_in(tmp_path)
    train_all(feed, 3)
    assert [result.state for result in feed.store.results()] == ["COMPLETE"] * 6


def test_notes_of_crashes_are_removed(tmp_path: Path) -> None:
    with crashes_noted(tmp_path):
        assert len(list(tmp_path.iterdir())) == 1
        forget_crashes(tmp_path)
        assert len(list(tmp_path.iterdir())) == 1, "this process lives"
    assert not list(tmp_path.iterdir())
    in_a_process(tmp_path, 1, crashes)
    assert list(tmp_path.glob(".crash-*"))
    forget_crashes(tmp_path)
    assert not list(tmp_path.glob(".crash-*"))


def test_os_exit_is_an_error_in_this_thread_only() -> None:
    with exits_as_errors():
        with pytest.raises(SystemExit, match=r"os\._exit\(3\)"):
            os._exit(3)
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
