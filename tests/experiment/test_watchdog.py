"""Trials that hang are named with what they do, after a stated time."""

from __future__ import annotations

import re
import threading

import pytest

from dropsearch.core.records import EpochMetrics, TrialResult
from dropsearch.experiment import watchdog
from dropsearch.experiment.watchdog import HeardFeed, Watchdog
from tests.training.conftest import Queue, make_specs


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("dropsearch.experiment.watchdog.time.monotonic", lambda: now[0])
    return now


def test_trials_are_named_with_their_stage(clock: list[float]) -> None:
    dog = Watchdog()
    feed = HeardFeed(Queue(make_specs("mlp", 3)), dog)
    first, second = feed.ask(2)
    feed.report([(first, EpochMetrics(4, 1.0, 1.0, 1.0))])
    clock[0] = watchdog.STALL - 1
    assert not dog.stalled()
    clock[0] = watchdog.STALL + 1
    said = dog.stalled()
    assert f"{first.key} (after epoch 5), {second.key} (before its first epoch ended);" in said
    assert not dog.stalled(), "said once, then after twice the time"
    clock[0] = 2 * watchdog.STALL + 1
    assert re.search("for 601 s", dog.stalled())


def test_what_ends_is_not_waited_for(clock: list[float]) -> None:
    dog = Watchdog()
    feed = HeardFeed(Queue(make_specs("mlp", 1)), dog)
    (spec,) = feed.ask(1)
    feed.tell([TrialResult(spec, "COMPLETE", (), 1.0)])
    clock[0] = 10 * watchdog.STALL
    assert not dog.stalled()


def test_the_line_is_printed_while_trials_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    said = threading.Event()
    monkeypatch.setattr(watchdog, "LOOK", 0.01)
    dog = Watchdog()
    monkeypatch.setattr(dog, "stalled", lambda: said.set() or "")
    with dog.watching():
        assert said.wait(30)
