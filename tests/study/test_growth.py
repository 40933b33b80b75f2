"""What a trial of a long study costs, counted in function calls and in memory."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from dropsearch.core.records import EpochMetrics, TrialResult
from dropsearch.study.algorithms import sampler_factory
from dropsearch.study.search_feed import SearchFeed
from dropsearch.study.storage import open_storage
from dropsearch.study.store import StudyStore
from tests.study.conftest import ask, ended, make_feed

SHORT, LONG = 400, 1000


def calls(act: Callable[[], object]) -> int:
    """Return how many functions are called."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(before)
    return count


def one_trial(feed: SearchFeed) -> None:
    feed.tell([ended(ask(feed))])


def grow(feed: SearchFeed, until: int) -> None:
    while len(feed.store.claims.holders) < until:
        feed.tell([ended(spec) for spec in feed.ask(min(250, until - len(feed.store.claims.holders)))])


def draw_by(feed: SearchFeed, sampler: str) -> None:
    proposer = feed.store._proposer
    proposer._make_sampler = make = sampler_factory(sampler, 10)
    proposer._inferring = make(0)


@pytest.mark.parametrize(("sampler", "growth"), [("random", 1.2), ("tpe", LONG / SHORT)])
def test_what_a_trial_costs_in_a_long_study(make_store: Callable[..., StudyStore], sampler: str, growth: float) -> None:
    """It costs no more than in a short one; TPE reads all trials, so its cost grows with their number."""
    feed = make_feed(make_store(), total=LONG + 100)
    counts = []
    for trials in (SHORT, LONG):
        draw_by(feed, "random")
        grow(feed, trials)
        draw_by(feed, sampler)
        one_trial(feed)
        counts.append(calls(lambda: one_trial(feed)))
    short, long = counts
    assert long < growth * short, (short, long)


TRIALS, EPOCHS, MOST_BYTES = 10_000, 10, 50 * 2**20
"""A study of so many trials of ten epochs may hold so much more memory at its end than at its beginning."""


def whole(feed: SearchFeed, count: int) -> None:
    """Train trials of ten epochs, each with digits of its own."""
    specs = feed.ask(count)
    losses = {spec.number: [spec.lr / (3 + e) for e in range(EPOCHS)] for spec in specs}
    curves = {n: tuple(EpochMetrics(e, x, x, x, x, x) for e, x in enumerate(losses[n])) for n in losses}
    for epoch in range(EPOCHS):
        feed.report([(spec, curves[spec.number][epoch]) for spec in specs])
    feed.tell([TrialResult(spec, "COMPLETE", curves[spec.number], 1.0) for spec in specs])


@pytest.mark.parametrize("url", [None, "sqlite:///{}/study.db"])
def test_a_long_study_takes_little_memory(tmp_path: Path, url: str | None) -> None:
    storage = open_storage(url and url.format(tmp_path), tmp_path / "study.journal")
    feed = make_feed(StudyStore(storage, "s", arm="dropout", phase="search", fingerprint={}), total=TRIALS)
    tracemalloc.start()
    try:
        whole(feed, 50)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        whole(feed, 100)
        gc.collect()
        each = (tracemalloc.get_traced_memory()[0] - before) / 100
    finally:
        tracemalloc.stop()
        if url:
            storage.engine.dispose()  # type: ignore[attr-defined]
    assert each * TRIALS < MOST_BYTES, f"{each:.0f} bytes a trial"
