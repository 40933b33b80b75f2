"""Steps a second of a raw loop, trial after trial, against those of vectorized trials.

python scripts/bench/serial_baseline.py [WORKLOAD ...] [--quick]

The raw loop (see raw.py) trains whole epochs of one trial after another; what begins a trial (network, optimizer, on
CUDA the capture of its graph) is shown separately. The width is the one that the plan chooses; the rate is the width
over the median time of its step, masks and batches included. Both sides leave out evaluation and alternate in one
process, on a CPU with one thread, and the ratio is taken per pair.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

from parts import Parts, step_seconds
from raw import RawLoop
from section import Section, median_and_range

from dropsearch.core.records import TrialSpec


@dataclass(frozen=True)
class Turn:
    """One pair of measurements."""

    raw: float
    """Steps a second."""
    begin: float
    """Seconds to begin a trial."""
    ours: float
    """Trial steps a second."""


def raw_turn(loop: RawLoop, specs: Iterator[TrialSpec], epochs: int, seconds: float) -> tuple[float, float]:
    """Train trials until their steps have taken `seconds`; return steps a second, and seconds to begin a trial."""
    trained, done, begun = 0.0, 0, []
    while not begun or trained < seconds:
        started = time.perf_counter()
        loop.begin(next(specs))
        begun.append(time.perf_counter() - started)
        for _ in range(epochs):
            started = time.perf_counter()
            loop.epoch()
            trained += time.perf_counter() - started
            done += loop.steps
    return done / trained, statistics.median(begun)


def rows(name: str, quick: bool) -> list[list[str]]:
    """Measure a workload."""
    turns, seconds = (2, 0.2) if quick else (5, 2.0)
    parts = Parts.load(name, "engine=vectorized", quick=quick)
    trials, loop = parts.vectorized(parts.plan().width), RawLoop(parts)
    specs, epochs = itertools.cycle(parts.specs(32)), parts.epochs
    raw_turn(loop, specs, 1, 0.0)
    found = [
        Turn(*raw_turn(loop, specs, epochs, seconds), ours=len(trials.stack.trial_rows) / step_seconds(trials, seconds))
        for _ in range(turns)
    ]
    return [
        [
            name,
            f"{statistics.median(turn.raw for turn in found):,.0f}",
            f"{1000 * statistics.median(turn.begin for turn in found):.1f}",
            str(len(trials.stack.trial_rows)),
            f"{statistics.median(turn.ours for turn in found):,.0f}",
            median_and_range([turn.ours / turn.raw for turn in found]),
        ]
    ]


SECTION = Section(
    "A raw serial baseline",
    "A raw loop (data on the device, fused AdamW; on CUDA a graph of the step) against vectorized trials, without "
    "evaluation; one process, on a CPU one thread.",
    (
        "workload",
        "raw loop, steps/s",
        "beginning a trial, ms",
        "width",
        "vectorized, trial steps/s",
        "vectorized / raw (range)",
    ),
    rows,
)

if __name__ == "__main__":
    SECTION.main()
