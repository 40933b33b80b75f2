"""Engines in worker processes return the results of a single process, and survive the death of a worker."""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch

from dropsearch.core.errors import RunError
from dropsearch.core.processes import GONE, started
from dropsearch.core.records import TrialSpec
from dropsearch.models import Classifier
from dropsearch.training import multiprocess
from dropsearch.training.multiprocess import ProcessEngine, can_fork
from dropsearch.training.protocols import INTERRUPTED, Engine, TrainerSettings, describe_engine
from dropsearch.training.sequential import SequentialEngine
from dropsearch.training.vectorized.engine import VectorizedEngine
from tests.training.conftest import Queue, Waiting, make_factory, make_source, make_specs

pytestmark = pytest.mark.skipif(not can_fork(), reason="processes are forked on Linux without CUDA only")
SETTINGS = TrainerSettings(2, "cpu")


@contextmanager
def in_processes(engine: Engine, count: int = 2) -> Iterator[ProcessEngine]:
    opened = ProcessEngine(engine, count)
    try:
        yield opened
    finally:
        opened.close()


def make_engine(sequential: bool) -> Engine:
    factory, source = make_factory("mlp", "batch"), make_source("mlp")
    return SequentialEngine(factory, source, SETTINGS) if sequential else VectorizedEngine(factory, source, SETTINGS, 2)


def test_engine_descriptions() -> None:
    assert describe_engine("vectorized", "cuda", 32) == "vectorized, 32 trials at once on cuda"
    assert describe_engine("vectorized", "cpu", 1) == "vectorized, 1 trial at once on cpu"
    assert describe_engine("sequential", "cpu", 1, reason="engine=sequential") == "sequential on cpu: engine=sequential"
    with in_processes(make_engine(sequential=False)) as engine:
        assert engine.description == "2 processes x 2 trials, vectorized, on cpu"
    with in_processes(make_engine(sequential=True)) as engine:
        assert engine.description == "2 processes x 1 trial, sequential, on cpu"


@pytest.mark.parametrize("sequential", [True, False])
def test_results_equal_single_process(sequential: bool) -> None:
    specs = make_specs("mlp", 5)
    here, there = Queue(list(specs)), Queue(list(specs))
    make_engine(sequential).run(here)
    with in_processes(make_engine(sequential)) as engine:
        engine.run(there)
    assert here.results.keys() == there.results.keys()
    for number, result in here.results.items():
        theirs = there.results[number]
        assert theirs.state == result.state
        assert [p.val_loss for p in theirs.curve] == pytest.approx([p.val_loss for p in result.curve], abs=1e-6)


def test_engine_runs_several_feeds() -> None:
    with in_processes(make_engine(sequential=False)) as engine:
        for _ in range(2):
            feed = Queue(make_specs("mlp", 3))
            engine.run(feed)
            assert len(feed.results) == 3


def test_limit_of_open_trials_is_shared() -> None:
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


@pytest.mark.parametrize("sequential", [True, False])
def test_a_process_waits_for_trials_of_another(sequential: bool) -> None:
    specs = make_specs("mlp", 6)
    feed = Waiting(list(specs), first=1, epochs=2)
    with in_processes(make_engine(sequential)) as engine:
        engine.run(feed)
        assert len(feed.results) == 6  # one process began with nothing, and was not dismissed
    assert feed.results.keys() == {spec.number for spec in specs}


def test_a_process_that_waits_is_stopped() -> None:
    feed = Waiting(make_specs("mlp", 3), lambda *_: True, stop_after=1, first=1, epochs=100)
    with in_processes(make_engine(sequential=False)) as engine:
        engine.run(feed)
    assert feed.results.keys() == {0}


def test_pruning() -> None:
    feed = Queue(make_specs("mlp", 4), prune=lambda spec, _: spec.number == 2)
    with in_processes(make_engine(sequential=False)) as engine:
        engine.run(feed)
    assert [feed.results[n].state for n in range(4)] == ["COMPLETE", "COMPLETE", "PRUNED", "COMPLETE"]


def test_cancel_tells_all_trials() -> None:
    feed = Queue(make_specs("mlp", 40), prune=lambda spec, _: spec.number == 0, stop_after=1)
    long = VectorizedEngine(make_factory("mlp"), make_source("mlp"), TrainerSettings(100_000, "cpu"), 2)
    with in_processes(long) as engine:
        engine.run(feed)
    assert feed.asked == len(feed.results) > 1
    assert {r.reason for r in feed.results.values() if r.state == "FAIL"} == {INTERRUPTED}


class Idle:
    """An engine that is never used."""

    description = "idle"

    def describe(self, processes: int) -> str:
        return self.description

    def run(self, feed: object) -> None: ...

    def close(self) -> None: ...


def interrupt() -> None:
    raise KeyboardInterrupt


def cancel() -> None:
    raise asyncio.CancelledError("the loader's task was cancelled")


def stop() -> None:
    next(iter(()))


ENDINGS: dict[str, Callable[[], object]] = {
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGSEGV": lambda: ctypes.string_at(0),
    "status 3": lambda: os._exit(3),
    "SystemExit: 4": lambda: sys.exit(4),
    "KeyboardInterrupt": interrupt,
    "StopIteration": stop,
    "CancelledError": cancel,
}
"""How a trial ends itself or its process, by the reason of its result."""


def ending(numbers: set[int], how: str, width: int = 0) -> Engine:
    """Return an engine some of whose trials end their process in a training step; vectorized if `width` is given."""
    factory = make_factory("mlp")

    class Ending(Classifier):
        def training_step(self, batch: Sequence[torch.Tensor], batch_idx: int = 0) -> torch.Tensor:
            ENDINGS[how]()
            return super().training_step(batch, batch_idx)

    def make(spec: TrialSpec) -> Classifier:
        return Ending(factory(spec).net) if spec.number in numbers else factory(spec)

    source = make_source("mlp")
    return VectorizedEngine(make, source, SETTINGS, width) if width else SequentialEngine(make, source, SETTINGS)


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSEGV", "status 3", "SystemExit: 4", "KeyboardInterrupt"])
def test_a_trial_that_ends_its_process_fails_and_the_others_go_on(how: str) -> None:
    feed = Queue(make_specs("mlp", 6))
    with in_processes(ending({0, 1, 4}, how)) as engine:
        engine.run(feed)
        assert len(engine._workers) == 2, "each process that died was replaced"
    states = {number: result.state for number, result in feed.results.items()}
    assert states == {n: "FAIL" if n in (0, 1, 4) else "COMPLETE" for n in range(6)}
    assert all(how in feed.results[n].reason for n in (0, 1, 4))


@pytest.mark.parametrize("how", ["SIGSEGV", "SystemExit: 4"])
@pytest.mark.falls_back
def test_of_trials_that_train_together_only_the_one_that_ends_the_process_fails(how: str) -> None:
    factory, source = make_factory("mlp"), make_source("mlp")

    def make(spec: TrialSpec) -> Classifier:
        if spec.number == 1:
            ENDINGS[how]()
        return factory(spec)

    feed = Queue(make_specs("mlp", 6))
    with in_processes(VectorizedEngine(make, source, SETTINGS, 3), 1) as engine:
        engine.run(feed)
    assert {n: r.state for n, r in feed.results.items()} == {n: "FAIL" if n == 1 else "COMPLETE" for n in range(6)}
    assert how in feed.results[1].reason
    alone = Queue(make_specs("mlp", 6))
    SequentialEngine(factory, source, SETTINGS).run(alone)
    for number in (0, 2, 3, 4, 5):
        theirs = [point.val_loss for point in alone.results[number].curve]
        assert [point.val_loss for point in feed.results[number].curve] == pytest.approx(theirs, abs=1e-5)


@pytest.mark.parametrize("how", ["SystemExit: 4", "KeyboardInterrupt", "StopIteration", "CancelledError"])
def test_exiting_trial_fails_in_this_process(how: str) -> None:
    feed, handler = Queue(make_specs("mlp", 3)), signal.getsignal(signal.SIGINT)
    ending({1}, how).run(feed)
    assert {n: r.state for n, r in feed.results.items()} == {0: "COMPLETE", 1: "FAIL", 2: "COMPLETE"}
    assert how in feed.results[1].reason
    assert signal.getsignal(signal.SIGINT) is handler, "Ctrl-C still stops the run"


def test_sleeping_trial_does_not_block_a_stopped_run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(ENDINGS, "sleeps", lambda: time.sleep(600))
    monkeypatch.setattr(multiprocess, "GRACE", 1.0)
    monkeypatch.setattr(multiprocess, "SAYS_AFTER", 0.2)
    feed = Queue(make_specs("mlp", 6), stop_after=1)
    started_at = time.monotonic()
    with in_processes(ending({0}, "sleeps")) as engine:
        engine.run(feed)
    assert time.monotonic() - started_at < 60
    assert (feed.results[0].state, feed.results[0].reason) == ("FAIL", INTERRUPTED)
    assert len(feed.results) == feed.asked
    assert "stopping: waiting 1 s for 1 processes" in capfd.readouterr().err


def test_killed_idle_process_is_replaced() -> None:
    with in_processes(make_engine(sequential=True)) as engine:
        for worker in engine._workers:
            os.kill(engine.crew.pids[worker.channel], signal.SIGKILL)  # type: ignore[attr-defined]
        time.sleep(0.2)
        feed = Queue(make_specs("mlp", 4))
        engine.run(feed)
    assert {result.state for result in feed.results.values()} == {"COMPLETE"}


def test_processes_that_die_before_training_end_the_run() -> None:
    class Deadly(Idle):
        def run(self, feed: object) -> None:
            os._exit(7)

    with (
        in_processes(Deadly()) as engine,
        pytest.raises(RunError, match=r"processes die .* by status 7: is there enou"),
    ):
        engine.run(Queue(make_specs("mlp", 2)))


def test_worker_uses_one_thread() -> None:
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


def test_fewer_open_trials_than_processes() -> None:
    feed = Queue(make_specs("mlp", 6), most_at_once=1)
    with in_processes(make_engine(sequential=False), 3) as engine:
        engine.run(feed)
        assert len(feed.results) == 6


def test_idle_worker_ends_with_its_parent() -> None:
    ours, theirs = multiprocessing.Pipe()
    owner = os.fork()
    if owner == 0:
        try:
            engine = ProcessEngine(Idle(), 1)
            holder = os.fork()
            if holder == 0:
                time.sleep(60)
            theirs.send((engine.crew.pids[engine._workers[0].channel], holder))  # type: ignore[attr-defined]
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(owner, 0)
    worker, holder = ours.recv()
    deadline = time.monotonic() + 300
    while started(worker) != GONE and time.monotonic() < deadline:
        time.sleep(0.02)
    ended = started(worker)
    os.kill(holder, signal.SIGKILL)
    assert ended == GONE


def test_pool_process_cannot_fork() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert not pool.apply(can_fork)
