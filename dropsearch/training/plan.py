"""Which engine trains, how wide, and why: proven and measured, not assumed."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning import Trainer

from dropsearch.dropout.control import TrialControl
from dropsearch.errors import InputError
from dropsearch.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.training.alone import ModuleFactory, quiet_lightning
from dropsearch.training.array import Array
from dropsearch.training.feed import RowDataSource, TrainerSettings
from dropsearch.training.logs import captured_logs
from dropsearch.training.proof import proof
from dropsearch.training.row_optimizers import configured

WIDEST = 32
"""Wider arrays would have TPE propose too much from too little: it learns from trials that ended."""

LIGHTNING_SECONDS = 4e-4
"""What a Trainer with one logged value adds to a step, as measured with a net that costs nothing."""

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
    """Steps of trials a second in one process, by the widths that were measured."""
    speed: float = 0.0
    """Steps of trials a second in one process as chosen, 0 where nothing was measured."""


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
    # The arm with the most to do: with masks to draw and, where there is one, BatchNorm, which stands last.
    costliest = max(reversed(pairs), key=lambda pair: len(pair[0].rates))
    chosen, rates = _measured_width(make_module, data, settings, costliest)
    alone = _rate_alone(make_module, data, costliest[0])
    if engine == "auto" and alone > rates.get(chosen, 0.0):
        reason = f"an array gains nothing here ({rates.get(chosen, 0.0):.0f} steps/s for {alone:.0f})"
        return Plan("alone", 1, reason, rates, alone)
    return Plan("array", chosen, "measured", rates, rates.get(chosen, 0.0))


def _rate_alone(make_module: ModuleFactory, data: RowDataSource, spec: TrialSpec) -> float:
    """Return the steps a second of one trial trained plainly, with what Lightning adds to each."""
    loader = data.train_loader(spec.seed)
    module = make_module(spec).to(loader.tensors[0].device).train()
    with quiet_lightning():
        module.trainer = Trainer(max_epochs=1, accelerator="cpu", barebones=True)
    control, (optimizer, _) = TrialControl(module, spec.rates, spec.seed), configured(module)
    times = []
    with captured_logs(module), control.watching():
        for step, batch in enumerate(itertools.islice(itertools.cycle(loader), 3)):
            started = time.perf_counter()
            with control.training_step(step):
                answer: Any = module.training_step(batch, step)
            loss = answer["loss"] if isinstance(answer, dict) else answer
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            float(loss.detach())  # waits for a GPU
            times.append(time.perf_counter() - started)
    return 1 / (min(times) + LIGHTNING_SECONDS)


def _measured_width(
    make_module: ModuleFactory, data: RowDataSource, settings: TrainerSettings, pair: Pair
) -> tuple[int, dict[int, float]]:
    def rate(width: int) -> float:
        array = Array(make_module, data, settings, _Copies(pair[0], width), width)
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
