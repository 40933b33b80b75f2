"""What refilling rows gains over a barrier of generations, when trials end at different times.

python scripts/bench/row_refill.py [WORKLOAD ...] [--quick]

Trials end after 1 to N epochs, by a seeded draw, as if pruned. Refilled: one feed of all trials, and each row takes
the next trial when its own ends. Barrier: generations of as many trials as there are rows; the next begins when the
last trial of one has ended. There are two: one whose width shrinks as trials end, as ours does when no trials are left,
and one of fixed width, whose idle rows are trained on (each of its trials lasts as long as the longest of its
generation). The idle share counts rows without a trial, over all epochs. Sides alternate in one process,
untracked, on a CPU with one thread; whole trials with evaluation.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Mapping, Sequence

import torch
from given_trials import SpecFeed
from parts import Parts
from section import Section, median_and_range
from workloads import WORKLOADS

from dropsearch.core.records import TrialSpec
from dropsearch.training.vectorized.engine import VectorizedEngine

EPOCHS = {"digits-mlp": 10}
"""The longest trial, where it is not `FEW`."""

FEW = 4
GENERATIONS, FEWEST = 4, 16
"""The number of trials in multiples of the width, and the least number of trials."""


def seconds(parts: Parts, width: int, feeds: Sequence[SpecFeed]) -> float:
    """Return the seconds in which one vectorized engine trains the trials of the feeds, one feed after another."""
    engine = VectorizedEngine(parts.make_module, parts.source, parts.settings, width)
    started = time.perf_counter()
    for feed in feeds:
        engine.run(feed)
    if parts.device.type == "cuda":
        torch.cuda.synchronize()
    ended = time.perf_counter()
    if engine.width != width or engine.failure:
        raise SystemExit(f"the workload cannot train vectorized: {engine.description}")
    return ended - started


def generations(specs: Sequence[TrialSpec], width: int) -> list[Sequence[TrialSpec]]:
    """Return the trials in groups of the width."""
    return [specs[start : start + width] for start in range(0, len(specs), width)]


def refilled_epochs(lifetimes: Mapping[int, int], width: int) -> int:
    """Return the number of epochs in which rows take the next trial as soon as they are free."""
    rows = [0] * width
    for number in sorted(lifetimes):
        row = rows.index(min(rows))
        rows[row] += lifetimes[number]
    return max(rows)


def idle(lifetimes: Mapping[int, int], width: int, epochs: int) -> float:
    """Return the share of rows without a trial over all epochs."""
    return 1 - sum(lifetimes.values()) / (width * epochs)


def rows(name: str, quick: bool) -> list[list[str]]:
    """Measure a workload."""
    longest = FEW if quick else EPOCHS.get(name, FEW)
    parts = Parts.load(name, "engine=vectorized", f"trainer.max_epochs={longest}", quick=quick)
    width = max(2, parts.plan().width)
    specs = parts.specs(2 * width if quick else max(GENERATIONS * width, FEWEST))
    draw = random.Random(0)
    lifetimes = {spec.number: draw.randint(1, longest) for spec in specs}
    groups = generations(specs, width)
    seconds(parts, width, [SpecFeed(specs[:width], dict.fromkeys(lifetimes, 1))])  # warms up
    last = {spec.number: max(lifetimes[other.number] for other in group) for group in groups for spec in group}
    turns = [
        (
            seconds(parts, width, [SpecFeed(specs, lifetimes)]),
            seconds(parts, width, [SpecFeed(group, lifetimes) for group in groups]),
            seconds(parts, width, [SpecFeed(group, last) for group in groups]),
        )
        for _ in range(2 if quick else 5)
    ]
    refilled, narrowing, fixed = zip(*turns, strict=True)
    barrier = sum(last[group[0].number] for group in groups)
    return [
        [
            name,
            str(width),
            f"{len(specs)} of 1 to {longest} epochs",
            f"{len(specs) / statistics.median(refilled):.2f}",
            *_against(len(specs), narrowing, refilled),
            *_against(len(specs), fixed, refilled),
            f"{idle(lifetimes, width, refilled_epochs(lifetimes, width)):.0%} / {idle(lifetimes, width, barrier):.0%}",
        ]
    ]


def _against(trials: int, barrier: Sequence[float], refilled: Sequence[float]) -> tuple[str, str]:
    ratios = [theirs / ours for theirs, ours in zip(barrier, refilled, strict=True)]
    return f"{trials / statistics.median(barrier):.2f}", median_and_range(ratios)


SECTION = Section(
    "Refilled rows against a barrier of generations",
    "Trials that end after different numbers of epochs, by a seeded draw; untracked, with evaluation, one process. A "
    "generation's idle rows are given up (the width shrinks) or trained on (the width is fixed).",
    (
        "workload",
        "width",
        "trials",
        "refilled, trials/s",
        "barrier that narrows, trials/s",
        "refilled / it (range)",
        "barrier of fixed width, trials/s",
        "refilled / it (range)",
        "idle rows, refilled / barrier",
    ),
    rows,
    workloads=("digits-mlp", "fashion-mlp") if not torch.cuda.is_available() else tuple(WORKLOADS),
)

if __name__ == "__main__":
    SECTION.main()
