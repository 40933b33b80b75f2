"""A run that was asked to stop ends in time."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from dropsearch.experiment import interruption
from dropsearch.experiment.interruption import ends_in_time


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_does_not_stop_is_ended(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "DEADLINE", 0.05)
    left = threading.Event()
    before = signal.signal(number, lambda *_: None)
    try:
        with ends_in_time(left.set):
            os.kill(os.getpid(), number)
            assert left.wait(300)
    finally:
        signal.signal(number, before)


def test_a_run_that_stops_in_time_goes_on_to_its_report(monkeypatch: pytest.MonkeyPatch) -> None:
    left = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with ends_in_time(left.set):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not left.is_set()
    assert signal.set_wakeup_fd(-1) == -1
