from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.samplers import RandomSampler

from dropsearch.core.records import ARMS, EpochMetrics, Site, State, TrialResult, TrialSpec
from dropsearch.study.feeds import StudyFeed
from dropsearch.study.search_feed import SearchFeed
from dropsearch.study.search_space import Space, SpaceSettings
from dropsearch.study.storage import open_storage
from dropsearch.study.store import StudyStore

SITES = (Site("a", "input", 0.1, 4), Site("b", "hidden", 0.1, 4))


def make_space(arm: str = "dropout", **settings: Any) -> Space:
    return Space(SpaceSettings(**settings), ARMS[arm], SITES, {"a": 0.15, "b": 0.4})


def ended(spec: TrialSpec, state: State = "COMPLETE", reason: str = "", loss: float | None = None) -> TrialResult:
    value = loss if loss is not None else spec.lr
    curve = tuple(EpochMetrics(e, value, value, value + 1 - e, 0.5, 0.5) for e in range(2))
    return TrialResult(spec, state, curve if state != "FAIL" else (), 0.1, reason)


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., StudyStore]:
    def make(phase: str = "search", arm: str = "dropout", **fingerprint: object) -> StudyStore:
        storage = open_storage(None, tmp_path / "study.journal")
        name = f"s/{arm}" + ("/confirm" if phase == "confirm" else "")
        return StudyStore(
            storage,
            name,
            arm=arm,
            phase=phase,  # type: ignore[arg-type]
            fingerprint={"seed": 0, "sites": ["a", "b"], **fingerprint},
            make_sampler=RandomSampler,
        )

    return make


def make_feed(store: StudyStore, total: int = 5, **settings: Any) -> SearchFeed:
    return SearchFeed(store, make_space(store.arm, **settings), total=total, seed=0, cancelled=lambda: False)


def work(feed: StudyFeed, count: int | None = None) -> list[TrialSpec]:
    """Train up to `count` trials, all of the feed's by default."""
    done: list[TrialSpec] = []
    while (count is None or len(done) < count) and (specs := feed.ask(1)):
        feed.tell([ended(spec) for spec in specs])
        done += specs
    return done


def ask(feed: StudyFeed) -> TrialSpec:
    """Begin one trial, of which there must be one more."""
    (spec,) = feed.ask(1)
    return spec
