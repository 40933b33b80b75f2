"""A study has the same trials whatever trains them, in whatever order they end."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.study.algorithms import make_pruner, sampler_factory
from dropsearch.study.feeds import DIVERGED
from dropsearch.study.search_feed import SearchFeed, TrialClock
from dropsearch.study.storage import open_storage
from dropsearch.study.store import StudyStore
from tests.study.conftest import make_space

EPOCHS, TOTAL = 5, 20


class Machine(NamedTuple):
    """What trains: how many trials at once, whether all of them end an epoch together, and the luck of its speed."""

    rows: int
    in_step: bool
    luck: int
    patience: int = 1
    """How many rows are free before it asks, as when trials of several processes end before the first one asks."""


MACHINES = [
    Machine(8, True, 0),
    Machine(8, False, 1),
    Machine(3, True, 2),
    Machine(2, False, 3),
    Machine(2, False, 4, patience=2),
    Machine(4, True, 5, patience=4),
]


def test_clock_waits_for_trials_that_may_end_earlier() -> None:
    clock = TrialClock(2)
    assert (clock.start(0), clock.start(1), clock.start(2)) == (0, 0, None)
    clock.survive(0, 4)
    clock.end(1, 5)
    assert clock.start(2) is None  # trial 0 may end at 5 too
    clock.survive(0, 5)
    assert (clock.start(2), clock.unknown(2)) == (5, {0})
    clock.end(0, 7)
    clock.survive(2, 1)
    assert clock.start(3) is None
    clock.survive(2, 2)
    assert (clock.start(3), clock.unknown(3)) == (7, {2})
    assert clock.unknown(2) == {0, 3}  # what ended meanwhile stays unknown to a trial that runs


def test_trials_that_fail_at_once_are_unknown_at_the_same_tick() -> None:
    clock = TrialClock(2)
    assert (clock.start(0), clock.start(1)) == (0, 0)
    clock.end(0, 0)
    assert (clock.start(2), clock.unknown(2)) == (0, {0, 1})
    clock.end(1, 0)
    assert (clock.start(3), clock.unknown(3)) == (0, {0, 1, 2})


def test_a_trial_that_starts_again_does_not_know_later_ones() -> None:
    clock = TrialClock(2)
    clock.end(0, 5)
    clock.end(2, 5)  # trial 1 was interrupted in an earlier run, and trial 2 ended there
    assert (clock.start(0), clock.start(1)) == (0, 0)
    assert 2 in clock.unknown(1)


def test_a_trial_that_dies_took_the_epochs_that_it_had_survived() -> None:
    clock = TrialClock(1)
    assert clock.start(0) == 0
    clock.survive(0, 7)
    clock.end(0, 0)
    assert clock.start(1) == 7


def loss(spec: TrialSpec, epoch: int) -> float:
    """Return a loss that depends on the trial's parameters and seed alone; some trials diverge."""
    luck = random.Random(spec.seed)
    diverges = luck.random() < 0.1
    rates = sum((rate - 0.3) ** 2 for rate in spec.rates.values())
    value = rates + abs(math.log10(spec.lr) + 2.5) + luck.random() / 2 + 1 / (epoch + 1)
    return math.nan if diverges and epoch == 2 else value


def end(spec: TrialSpec, curve: list[EpochMetrics], pruned: bool) -> TrialResult | None:
    if not curve and random.Random(spec.seed + 1).random() < 0.1:
        return TrialResult(spec, "FAIL", (), 0.0, "its constructor raised")
    if curve and math.isnan(curve[-1].val_loss):
        return TrialResult(spec, "FAIL", tuple(curve), 0.0, f"{DIVERGED} after epoch 3")
    if pruned or len(curve) == EPOCHS:
        return TrialResult(spec, "PRUNED" if len(curve) < EPOCHS else "COMPLETE", tuple(curve), 0.0, "")
    return None


def train(feed: SearchFeed, machine: Machine) -> None:
    """Train all trials of a feed."""
    luck, rows = random.Random(machine.luck), {}
    while True:
        wanted = machine.rows - len(rows)
        for spec in feed.ask(wanted) if wanted >= machine.patience else ():
            rows[spec.number] = (spec, [])
        if not rows:
            assert not feed.held
            return
        for number in [*rows] if machine.in_step else luck.choices([*rows], k=1 + luck.randrange(len(rows))):
            if number not in rows:
                continue
            spec, curve = rows[number]
            result, pruned = end(spec, curve, False), False
            if result is None:
                value = loss(spec, len(curve))
                curve.append(EpochMetrics(len(curve), value, value, value, 0.5, 0.5))
                pruned = not math.isnan(value) and feed.report([(spec, curve[-1])])[0]
                result = end(spec, curve, pruned)
            if result is not None:
                feed.tell([result])
                del rows[number]


def make_feed(folder: Path, sampler: str, pruner: str, total: int = TOTAL, **more: Any) -> SearchFeed:
    folder.mkdir(exist_ok=True)
    store = StudyStore(
        open_storage(None, folder / "study.journal"),
        "s/dropout",
        arm="dropout",
        phase="search",
        fingerprint={"seed": 0},
        make_sampler=sampler_factory(sampler, 4),
        pruner=make_pruner(pruner, EPOCHS, n_startup_trials=3, warmup_epochs=1),
    )
    return SearchFeed(
        store, make_space(), total=total, seed=0, cancelled=lambda: False, most_at_once=8, max_epochs=EPOCHS, **more
    )


def found(feed: SearchFeed) -> list[Any]:
    results = sorted(feed.store.results(), key=lambda result: result.spec.seed)
    return [(result.spec.params, result.state, len(result.curve)) for result in results]


@pytest.mark.parametrize(("sampler", "pruner"), [("tpe", "median"), ("random", "hyperband"), ("tpe", "none")])
def test_trials_do_not_depend_on_what_trains_them(tmp_path: Path, sampler: str, pruner: str) -> None:
    seen = []
    for machine in MACHINES:
        feed = make_feed(tmp_path / str(machine.luck), sampler, pruner)
        train(feed, machine)
        assert feed.is_repeatable
        seen.append(found(feed))
    assert {state for _, state, _ in seen[0]} >= ({"COMPLETE", "FAIL"} if pruner == "none" else {"PRUNED", "FAIL"})
    assert len(seen[0]) == TOTAL
    assert all(each == seen[0] for each in seen)


def test_a_continued_study_has_the_trials_of_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = make_feed(tmp_path / "whole", "tpe", "median")
    train(whole, MACHINES[0])
    train(make_feed(tmp_path / "parts", "tpe", "median", total=11), MACHINES[1])
    again = make_feed(tmp_path / "parts", "tpe", "median")
    train(again, MACHINES[3])
    assert found(again) == found(whole)


@pytest.mark.parametrize("waits", [True, False])
def test_rows_are_empty_only_where_proposals_wait(tmp_path: Path, waits: bool) -> None:
    feed = make_feed(tmp_path, "tpe", "none", waits=waits)
    long, *others = feed.ask(8)
    for spec in others:
        feed.tell([TrialResult(spec, "COMPLETE", (EpochMetrics(0, 1.0, 1.0, 1.0, 0.5, 0.5),), 0.0, "")])
    # The long trial has reported nothing: on the clock it may end first.
    assert (len(feed.ask(7)), feed.held) == ((0, True) if waits else (7, False))
    assert long.number == 0
    assert feed.is_repeatable


def test_nothing_waits_for_trials_of_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("dropsearch.core.processes.this_process", lambda: "elsewhere:1:1")
        make_feed(tmp_path, "tpe", "median").ask(4)
    ours = make_feed(tmp_path, "tpe", "median")
    assert len(ours.ask(8)) == 8
    assert len(ours.ask(30)) == TOTAL - 12
    assert not ours.held
    assert not ours.is_repeatable
