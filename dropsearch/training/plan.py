"""Which engine trains, how wide, and why: proven and measured, not assumed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from dropsearch.errors import InputError
from dropsearch.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.training.alone import ModuleFactory
from dropsearch.training.array import Array, ArrayEngine
from dropsearch.training.feed import RowDataSource, TrainerSettings
from dropsearch.training.proof import proof

WIDEST = 32
"""Wider arrays would have TPE propose too much from too little: it learns from trials that ended."""

MEASURING_SECONDS = 1.5
"""No wider array is tried once measuring has taken this long."""

Pair = tuple[TrialSpec, TrialSpec]


@dataclass(frozen=True)
class Plan:
    """Which engine, how wide, and the reason."""

    engine: str
    """array or alone."""
    width: int
    """How many trials train at once in a process."""
    reason: str
    rates: dict[int, float] = dataclasses.field(default_factory=dict)
    """Steps of trials per second, by the widths that were measured."""


def make_plan(
    make_module: ModuleFactory,
    data: RowDataSource,
    settings: TrainerSettings,
    pairs: Sequence[Pair],
    *,
    engine: str,
    width: int | None,
) -> Plan:
    """Choose how trials are trained.

    Args:
        make_module: Builds a trial's module.
        data: Where batches come from.
        settings: What all trials share.
        pairs: Two trials of each arm, whose training as an array is compared with training alone.
        engine: auto, array or alone.
        width: How many trials at once; None to measure.

    Raises:
        InputError: An array is asked for, and what it gives differs from trials alone.
    """
    if engine == "alone":
        return Plan("alone", 1, "engine=alone")
    for pair in pairs:
        difference = proof(make_module, data, settings, pair)
        if difference and engine == "array":
            raise InputError(
                f"engine=array needs a module that trains in an array as it does alone, but {difference}: "
                "use engine=auto or engine=alone"
            )
        if difference:
            return Plan("alone", 1, difference)
    if width is not None:
        return Plan("array", width, f"engine.width={width}")
    chosen, rates = _measured_width(make_module, data, settings, pairs[0])
    return Plan("array", chosen, "measured", rates)


def _measured_width(
    make_module: ModuleFactory, data: RowDataSource, settings: TrainerSettings, pair: Pair
) -> tuple[int, dict[int, float]]:
    def rate(width: int) -> float:
        engine = ArrayEngine(make_module, data, settings, width)
        array = Array(engine, _Copies(pair[0], width))
        warm = array.seconds_a_step(1)
        # Where one step takes this long, its first is as good a measure as any.
        return width / (warm if warm > 0.2 else array.seconds_a_step(3))

    try:
        return widest(rate, WIDEST)
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return 1, {}


def widest(rate: Callable[[int], float], most: int) -> tuple[int, dict[int, float]]:
    """Double the width as long as that gains something.

    Args:
        rate: Trial steps per second at a width.
        most: The largest width to try.

    Returns:
        The width with the highest rate, and what was measured by width.
    """
    rates: dict[int, float] = {}
    width, started = 1, time.perf_counter()
    while width <= most and time.perf_counter() - started < MEASURING_SECONDS:
        rates[width] = rate(width)
        # One width may be unlucky on a busy machine; that two in a row gain nothing is no accident.
        recent = [rates[w] for w in (width, width // 2) if w in rates]
        earlier = [r for w, r in rates.items() if w < width // 2]
        if earlier and max(recent) < 1.05 * max(earlier):
            break
        width *= 2
    return max(rates, key=lambda w: rates[w]), rates


class _Copies:
    """A feed of one trial many times, for measuring."""

    def __init__(self, spec: TrialSpec, count: int) -> None:
        self._specs = [dataclasses.replace(spec, number=n, seed=spec.seed + n) for n in range(count)]

    most_at_once: int | None = None

    def ask(self) -> TrialSpec | None:
        return self._specs.pop() if self._specs else None

    def report(self, spec: TrialSpec, metrics: EpochMetrics) -> bool:
        return False

    def tell(self, result: TrialResult) -> None:
        return None

    def cancelled(self) -> bool:
        return False
