"""Engines in processes of their own give what they give in this one, and survive one another."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from dropsearch.core.errors import RunError
from dropsearch.core.process_id import GONE, started
from dropsearch.core.records import TrialSpec
from dropsearch.models import Classifier
from dropsearch.training import multiprocess
from dropsearch.training.multiprocess import ProcessEngine, can_fork
from dropsearch.training.protocols import INTERRUPTED, Engine, TrainerSettings
from dropsearch.training.sequential import SequentialEngine
from dropsearch.training.vectorized.engine import VectorizedEngine
from tests.training.conftest import Queue, make_factory, make_source, make_specs

pytestmark = pytest.mark.skipif(not can_fork(), reason="processes are forked on Linux without CUDA only")
SETTINGS = TrainerSettings(3, "cpu")


@contextmanager
def in_processes(engine: Engine, count: int = 2) -> Iterator[ProcessEngine]:
    opened = ProcessEngine(engine, count)
    try:
        yield opened
    finally:
        opened.close()


@pytest.mark.parametrize(
    ("told", "allowed"), [("max 100000", 4), ("200000 100000", 2), ("50000 100000", 1), ("900000 100000", 4), ("?", 4)]
)
def test_a_container_gets_no_more_processes_than_its_share_of_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, allowed: int
) -> None:
    (tmp_path / "cpu.max").write_text(f"{told}\n")
    monkeypatch.setattr(multiprocess, "QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert multiprocess.cores() == allowed


def make_engine(alone: bool) -> Engine:
    factory, source = make_factory("mlp", "batch"), make_source("mlp")
    return SequentialEngine(factory, source, SETTINGS) if alone else VectorizedEngine(factory, source, SETTINGS, 2)


@pytest.mark.parametrize("alone", [True, False])
def test_results_are_those_of_one_process(alone: bool) -> None:
    specs = make_specs("mlp", 7)
    here, there = Queue(list(specs)), Queue(list(specs))
    make_engine(alone).run(here)
    with in_processes(make_engine(alone)) as engine:
        engine.run(there)
    assert here.results.keys() == there.results.keys()
    for number, result in here.results.items():
        theirs = there.results[number]
        assert theirs.state == result.state
        assert [p.val_loss for p in theirs.curve] == pytest.approx([p.val_loss for p in result.curve], abs=1e-6)


def test_an_engine_runs_one_feed_after_another() -> None:
    with in_processes(make_engine(alone=False)) as engine:
        for _ in range(2):
            feed = Queue(make_specs("mlp", 3))
            engine.run(feed)
            assert len(feed.results) == 3


def test_a_limit_on_open_trials_is_shared_by_the_processes() -> None:
    class Counting(Queue):
        most = 0

        def ask(self, count: int) -> list[TrialSpec]:
            specs = super().ask(count)
            self.most = max(self.most, self.asked - len(self.results))
            return specs

    feed = Counting(make_specs("mlp", 8), most_at_once=2)
    with in_processes(VectorizedEngine(make_factory("mlp"), make_source("mlp"), SETTINGS, 8)) as engine:
        engine.run(feed)
    assert len(feed.results) == 8
    assert feed.most <= 2


def test_pruning_reaches_the_processes() -> None:
    feed = Queue(make_specs("mlp", 4), prune=lambda spec, _: spec.number == 2)
    with in_processes(make_engine(alone=False)) as engine:
        engine.run(feed)
    assert [feed.results[n].state for n in range(4)] == ["COMPLETE", "COMPLETE", "PRUNED", "COMPLETE"]


def test_cancelling_ends_every_process_with_its_trials_told() -> None:
    feed = Queue(make_specs("mlp", 40), prune=lambda spec, _: spec.number == 0, stop_after=1)
    long = VectorizedEngine(make_factory("mlp"), make_source("mlp"), TrainerSettings(100_000, "cpu"), 2)
    with in_processes(long) as engine:
        engine.run(feed)
    assert feed.asked == len(feed.results) > 1
    assert {r.reason for r in feed.results.values() if r.state == "FAIL"} == {INTERRUPTED}


def killing(numbers: set[int]) -> SequentialEngine:
    """An engine whose process dies when it builds one of these trials."""
    factory = make_factory("mlp")

    def make(spec: TrialSpec) -> Classifier:
        if spec.number in numbers:
            os.kill(os.getpid(), signal.SIGKILL)
        return factory(spec)

    return SequentialEngine(make, make_source("mlp"), SETTINGS)


def test_a_process_that_dies_fails_its_trial_and_the_others_go_on() -> None:
    feed = Queue(make_specs("mlp", 6))
    with in_processes(killing({1})) as engine:
        engine.run(feed)
    assert len(feed.results) == 6
    assert feed.results[1].state == "FAIL"
    assert "SIGKILL" in feed.results[1].reason


def test_when_every_process_has_died_the_run_says_so() -> None:
    with in_processes(killing({0, 1})) as engine, pytest.raises(RunError, match="every training process died"):
        engine.run(Queue(make_specs("mlp", 6)))


def test_a_process_trains_with_one_thread() -> None:
    class Threads(Classifier):
        def configure_optimizers(self) -> object:
            assert torch.get_num_threads() == 1
            return super().configure_optimizers()

    factory = make_factory("mlp")
    feed = Queue(make_specs("mlp", 2))
    engine = SequentialEngine(lambda spec: Threads(factory(spec).net), make_source("mlp"), SETTINGS)
    with in_processes(engine) as engines:
        engines.run(feed)
    assert {r.state for r in feed.results.values()} == {"COMPLETE"}


def test_an_array_whose_process_dies_is_told_as_interrupted_for_nobody_in_it_can_be_blamed() -> None:
    factory = make_factory("mlp")

    class Dying(Classifier):
        def on_train_epoch_start(self) -> None: ...

        def validation_step(self, batch: object, batch_idx: int = 0) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

    def make(spec: TrialSpec) -> Classifier:
        return Dying(factory(spec).net) if spec.number < 3 else factory(spec)

    feed = Queue(make_specs("mlp", 3))
    with in_processes(VectorizedEngine(make, make_source("mlp"), SETTINGS, 3), 1) as engine, pytest.raises(RunError):
        engine.run(feed)
    assert {result.reason for result in feed.results.values()} == {INTERRUPTED}


def test_no_more_processes_work_than_may_have_trials_open() -> None:
    feed = Queue(make_specs("mlp", 6), most_at_once=1)
    with in_processes(make_engine(alone=False), 3) as engine:
        engine.run(feed)
        assert len(feed.results) == 6


class Idle:
    """An engine that is never asked for anything."""

    description = "idle"

    def run(self, feed: object) -> None: ...

    def close(self) -> None: ...


def test_an_idle_process_ends_with_its_owner_though_a_later_fork_holds_its_pipe() -> None:
    ours, theirs = multiprocessing.Pipe()
    owner = os.fork()
    if owner == 0:
        try:
            engine = ProcessEngine(Idle(), 1)
            holder = os.fork()
            if holder == 0:
                time.sleep(60)
            theirs.send((engine._workers[0].process.pid, holder))
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(owner, 0)
    worker, holder = ours.recv()
    deadline = time.monotonic() + 20
    while started(worker) != GONE and time.monotonic() < deadline:
        time.sleep(0.02)
    ended = started(worker)
    os.kill(holder, signal.SIGKILL)
    assert ended == GONE


def test_a_pools_process_must_not_fork() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert not pool.apply(can_fork)
