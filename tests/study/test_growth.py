"""A trial of a long study costs what a trial of a short one does, counted in function calls."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from dropsearch.study.feeds import SearchFeed
from dropsearch.study.samplers import sampler_factory
from dropsearch.study.store import StudyStore
from tests.study.conftest import ask, ended, make_feed

SHORT, LONG = 1000, 2500


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


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_trial_costs_no_more_in_a_long_study(make_store: Callable[..., StudyStore], sampler: str) -> None:
    feed = make_feed(make_store(), total=LONG + 100)
    grow(feed, SHORT)
    feed.store._make_sampler = sampler_factory(sampler, 10)
    feed.store._inferring = feed.store._make_sampler(0)
    one_trial(feed)
    short = calls(lambda: one_trial(feed))
    feed.store._make_sampler = sampler_factory("random", 10)
    grow(feed, LONG)
    feed.store._make_sampler = sampler_factory(sampler, 10)
    one_trial(feed)
    long = calls(lambda: one_trial(feed))
    assert long < 1.2 * short, (short, long)
