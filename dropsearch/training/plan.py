"""Which engine trains, how wide, and why: proven and measured, not assumed."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning import Trainer
from torch import nn

from dropsearch.dropout.control import TrialControl
from dropsearch.errors import InputError
from dropsearch.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.training.alone import ModuleFactory, laid_out, quiet_lightning
from dropsearch.training.array import Array
from dropsearch.training.feed import RowDataSource, TrainerSettings
from dropsearch.training.logs import captured_logs
from dropsearch.training.memory import Memory, free_memory, measured
from dropsearch.training.proof import proof
from dropsearch.training.row_optimizers import configured

WIDEST = 32
"""Wider arrays would have TPE propose too much from too little: it learns from trials that ended."""

LIGHTNING_SECONDS = 4e-4
"""What a Trainer with one logged value adds to a step, as measured with a net that costs nothing."""

MEASURING_SECONDS = 1.5
"""No wider array is tried once measuring has taken this long."""

Pair = tuple[TrialSpec, TrialSpec]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


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
    memory: Memory | None = None
    """What arrays take in one process, None where nothing was measured."""
    convolutions: Literal["grouped", "by row"] = "grouped"
    """How an array runs a convolution: grouped where nothing was measured."""
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
    processes: int = 1,
) -> Plan:
    """Choose how trials are trained.

    Args:
        make_module: Builds a trial's module.
        data: Where batches come from.
        settings: What all trials share.
        pairs: Two trials of each arm, whose training as an array is compared with training alone.
        engine: auto, array or alone.
        width: How many trials at once; None to measure.
        processes: How many processes share the memory.

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
    costliest = max(reversed(pairs), key=lambda pair: len(pair[0].rates))[0]
    memory, rates = _measured_width(make_module, data, settings, costliest, processes)
    chosen = max(rates, key=lambda w: rates[w])
    alone = _rate_alone(make_module, data, settings, costliest)
    if engine == "auto" and alone > rates[chosen]:
        reason = f"an array gains nothing here ({rates[chosen]:.0f} steps/s for {alone:.0f})"
        return Plan("alone", 1, reason, rates, memory, speed=alone)
    convolutions, speed = _convolutions(make_module, data, settings, costliest, chosen, rates[chosen])
    return Plan("array", chosen, "measured", rates, memory, convolutions, speed)


def _rate_alone(make_module: ModuleFactory, data: RowDataSource, settings: TrainerSettings, spec: TrialSpec) -> float:
    """Return the steps a second of one trial trained plainly, with what Lightning adds to each."""
    loader = data.train_loader(spec.seed)
    device = loader.tensors[0].device
    module = laid_out(make_module(spec).to(device), "gpu" if device.type == "cuda" else "cpu").train()
    with quiet_lightning():
        module.trainer = Trainer(max_epochs=1, accelerator="cpu", barebones=True)
    mixed = torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16-mixed")
    control, (optimizer, _) = TrialControl(module, spec.rates, spec.seed), configured(module)
    times = []
    with captured_logs(module), control.watching():
        for step, batch in enumerate(itertools.islice(itertools.cycle(loader), 3)):
            started = time.perf_counter()
            with mixed, control.training_step(step):
                answer: Any = module.training_step(batch, step)
            loss = answer["loss"] if isinstance(answer, dict) else answer
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            float(loss.detach())  # waits for a GPU
            times.append(time.perf_counter() - started)
    return 1 / (min(times) + LIGHTNING_SECONDS)


def _measured_width(
    make_module: ModuleFactory, data: RowDataSource, settings: TrainerSettings, spec: TrialSpec, processes: int
) -> tuple[Memory | None, dict[int, float]]:
    """Return the memory of an array, and the steps of trials a second by width, as far as memory allows."""

    def array(width: int) -> Array:
        return Array(make_module, data, settings, _Copies(spec, width), width)

    def rate(width: int) -> float:
        array_of = array(width)
        warm = array_of.seconds_a_step(1)
        # Where one step takes this long, its first is as good a measure as any.
        return width / (warm if warm > 0.2 else array_of.seconds_a_step(3))

    try:
        memory = measured(array)
        device = data.train_loader(spec.seed).tensors[0].device
        most = min(WIDEST, memory.widest(free_memory(device, processes)))
        return memory, widest(rate, most)[1]
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None, {1: 0.0}


def _convolutions(
    make_module: ModuleFactory,
    data: RowDataSource,
    settings: TrainerSettings,
    spec: TrialSpec,
    width: int,
    grouped: float,
) -> tuple[Literal["grouped", "by row"], float]:
    """Return how convolutions are best run, and the steps of trials a second that gives.

    Measured on a GPU alone: on a CPU the two take the same time, for there the convolution itself takes it.
    """
    convolves = any(isinstance(part, _CONVOLUTIONS) for part in make_module(spec).modules())
    if not convolves or width == 1 or data.train_loader(spec.seed).tensors[0].device.type != "cuda":
        return "grouped", grouped
    by_row = dataclasses.replace(settings, convolutions="by row")
    try:
        array = Array(make_module, data, by_row, _Copies(spec, width), width)
        array.seconds_a_step(1)
        rate = width / array.seconds_a_step(3)
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return "grouped", grouped
    return ("by row", rate) if rate > grouped else ("grouped", grouped)


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
