"""Whole trials a second: raw loops in several processes on the machine, against dropsearch's engine on the same one.

python scripts/bench/several_processes.py [WORKLOAD ...] [--quick]

The raw loop (see raw.py) runs in one process a core, on a GPU in 4 and in 8 processes, each with its share of the
trials; the clock runs from the moment when all are ready until the last is done. Ours is what `engine=auto` chooses,
in as many processes as it chooses, fed by one feed; nothing is tracked on either side. Both validate after each
epoch; ours evaluates a part of the training set as well. Sides alternate; the ratio is taken per pair.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from given_trials import SpecFeed
from parts import Parts
from raw import RawLoop
from section import Section, median_and_range

from dropsearch.core.records import TrialSpec
from dropsearch.experiment import engines
from dropsearch.training.protocols import Engine

_ready: tuple[RawLoop, Any] | None = None
"""What a process of the raw side holds: its loop, and the barrier of all."""


def _prepare(name: str, quick: bool, barrier: Any) -> None:
    global _ready
    parts = Parts.load(name, quick=quick)
    loop = RawLoop(parts)
    loop.begin(parts.specs(1)[0])
    loop.epoch()
    loop.evaluate()
    _ready = (loop, barrier)


def _train(specs: Sequence[TrialSpec], epochs: int) -> tuple[float, float]:
    assert _ready is not None
    loop, barrier = _ready
    barrier.wait()
    started = time.perf_counter()  # CLOCK_MONOTONIC, which is one for all processes of a machine
    for spec in specs:
        loop.begin(spec)
        for _ in range(epochs):
            loop.epoch()
            loop.evaluate()
    return started, time.perf_counter()


def raw_seconds(pool: ProcessPoolExecutor, processes: int, specs: Sequence[TrialSpec], epochs: int) -> float:
    """Return the seconds in which raw loops train all trials, each process its share: they meet at the barrier."""
    shares = [pool.submit(_train, specs[index::processes], epochs) for index in range(processes)]
    times = [share.result() for share in shares]
    return max(ended for _, ended in times) - min(started for started, _ in times)


def our_seconds(engine: Engine, specs: Sequence[TrialSpec]) -> float:
    """Return the seconds in which our engine trains all trials."""
    feed, started = SpecFeed(specs), time.perf_counter()
    engine.run(feed)
    assert len(feed.ended) == len(specs)
    return time.perf_counter() - started


def rows(name: str, quick: bool) -> list[list[str]]:
    """Measure a workload."""
    parts = Parts.load(name, quick=quick)
    plan = parts.plan()
    # Forked here, before this process has threads of its own.
    engine = engines.engine(parts.context, plan, lambda _: None)
    ours = parts.context.processes
    counts = (4, 8) if torch.cuda.is_available() else (len(os.sched_getaffinity(0)),)
    # Enough for all places at once, and as many for each process of the raw side.
    share = math.lcm(*counts, plan.width * ours)
    trials = share * max(1, round(parts.config.study.n_trials / share))
    specs = parts.specs(trials)
    engine.run(SpecFeed(parts.specs(plan.width * ours), dict.fromkeys(range(trials), 1)))  # warms up
    try:
        return [_row(parts, count, specs, engine, quick) for count in counts]
    finally:
        engine.close()


def _row(parts: Parts, count: int, specs: Sequence[TrialSpec], engine: Engine, quick: bool) -> list[str]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        count, mp_context=context, initializer=_prepare, initargs=(parts.name, quick, context.Barrier(count))
    ) as pool:
        raw_seconds(pool, count, specs[:count], 1)  # starts the processes
        times = [
            (raw_seconds(pool, count, specs, parts.epochs), our_seconds(engine, specs))
            for _ in range(2 if quick else 5)
        ]
    return [
        parts.name,
        str(len(specs)),
        str(count),
        f"{len(specs) / statistics.median(raw for raw, _ in times):.2f}",
        engine.description,
        f"{len(specs) / statistics.median(ours for _, ours in times):.2f}",
        median_and_range([raw / ours for raw, ours in times]),
    ]


SECTION = Section(
    "Several processes",
    "Raw loops in several processes against dropsearch's engine, whole trials with validation, untracked; the same "
    "machine and trials.",
    (
        "workload",
        "trials",
        "raw processes",
        "raw, trials/s",
        "our engine",
        "ours, trials/s",
        "ours / raw (range)",
    ),
    rows,
)

if __name__ == "__main__":
    SECTION.main()
