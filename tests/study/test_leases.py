"""Trials of a machine that vanishes come back within two minutes; those of one that lives stay its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from dropsearch.core.records import EpochMetrics
from dropsearch.study import known_trials
from dropsearch.study.known_trials import Silence, heartbeat
from dropsearch.study.store import StudyStore
from tests.fake_clock import Clock
from tests.study.conftest import ask, make_feed

MakeStore = Callable[..., StudyStore]
OTHER = "elsewhere:1:1"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("dropsearch.study.known_trials.time.monotonic", clock)
    monkeypatch.setattr("dropsearch.study.known_trials.time.time", clock)
    return clock


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], object]:
    def do(act: Callable[[], object]) -> object:
        with monkeypatch.context() as patched:
            patched.setattr("dropsearch.core.processes.this_process", lambda: OTHER)
            return act()

    return do


def passes(clock: Clock, seconds: float, feed: object, step: float = 5.0) -> int:
    """Let time pass, in which a feed looks after the others; return how many trials it took back."""
    taken, until = 0, clock.now + seconds
    while clock.now < until:
        clock.now += step
        taken += feed.store.close_abandoned()  # type: ignore[attr-defined]
    return taken


def test_vanished_machine_gives_its_trial_back_within_two_minutes(make_store, clock, elsewhere) -> None:
    sleeper = elsewhere(lambda: make_feed(make_store()))
    spec = elsewhere(lambda: ask(sleeper))
    feed = make_feed(make_store())
    assert passes(clock, 60, feed) == 0
    assert passes(clock, 60, feed) == 1
    assert ask(feed).seed == spec.seed


def test_trials_of_a_live_remote_process_are_not_taken(make_store, clock, elsewhere) -> None:
    sleeper = elsewhere(lambda: make_feed(make_store()))
    spec = elsewhere(lambda: ask(sleeper))
    feed = make_feed(make_store())
    for epoch in range(10):
        assert passes(clock, 40, feed) == 0
        elsewhere(lambda epoch=epoch: sleeper.report([(spec, EpochMetrics(epoch, 1.0, 1.0, 0.7))]))
        assert not elsewhere(sleeper.cancelled)
    assert len(make_store().study.trials[0].intermediate_values) == 10, "a dashboard sees the running trial"
    assert passes(clock, 120, feed) == 1


def test_a_process_that_slept_itself_takes_nothing(clock) -> None:
    silence = Silence()
    silence.look({}, [OTHER])
    clock.now = 5000.0
    silence.look({}, [OTHER])
    assert silence.of(OTHER) == known_trials.LONGEST_LOOK


def test_a_step_that_takes_minutes_keeps_its_trials(make_store, monkeypatch) -> None:
    """The training says nothing, and the heartbeat does."""
    monkeypatch.setattr("dropsearch.study.known_trials.LATE", 0.02)
    store = make_store()
    ask(make_feed(store))
    until = time.monotonic() + 300
    with heartbeat([store.renew_late]):
        while not (signs := [name for name in make_store().study.user_attrs if name.startswith("lease.")]):
            assert time.monotonic() < until
            time.sleep(0.02)
    assert signs


def test_the_heartbeat_leaves_a_failing_storage_to_the_training(make_store) -> None:
    beats = threading.Semaphore(0)

    def renew() -> None:
        beats.release()
        raise OSError(5, "Input/output error")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dropsearch.study.known_trials.LATE", 0.02)
        with heartbeat([renew]):
            assert beats.acquire(timeout=300)
            assert beats.acquire(timeout=300), "it goes on"
