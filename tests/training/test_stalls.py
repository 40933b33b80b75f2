"""A process that makes no progress is named and ended; the other trials are trained."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dropsearch.core.records import TrialResult, TrialSpec
from dropsearch.training import multiprocess
from dropsearch.training.multiprocess import ProcessEngine, can_fork, processor_time
from tests.training.conftest import Queue

pytestmark = pytest.mark.skipif(not can_fork(), reason="processes are forked on Linux without CUDA only")


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


def test_a_deadlocked_process_is_named_and_its_trial_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(multiprocess, "STALLED", 0.2)
    monkeypatch.setattr(multiprocess, "KILLED", 0.6)
    feed = Queue([TrialSpec("dropout", number, 0, {}, 1e-3, 0.0) for number in range(3)])
    engine = ProcessEngine(Stuck(), 1)
    try:
        engine.run(feed)
    finally:
        engine.close()
    assert [feed.results[number].state for number in range(3)] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert "no progress for" in feed.results[0].reason
    assert "makes no progress: no processor time for" in capsys.readouterr().err


def test_processor_time_grows_with_work() -> None:
    import os

    before = processor_time(os.getpid())
    while processor_time(os.getpid()) == before:
        sum(range(100_000))
    assert processor_time(2**22 + 1) == 0.0
