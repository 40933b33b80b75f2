"""Throughput of vectorized training at different widths, in trial steps per second."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import torch
from torch import nn

from dropsearch.core.records import TrialSpec
from dropsearch.training.protocols import Convolutions, DataSource, GivenTrials, TrainerSettings, device_of
from dropsearch.training.sequential import ModuleFactory
from dropsearch.training.vectorized.row_source import RowSource
from dropsearch.training.vectorized.trials import VectorizedTrials, free_gpu_memory

BUDGET_SECONDS = 1.5
"""No further width is measured after this time."""
GPU_BUDGET_SECONDS = 30.0
"""The same on a GPU, where capturing a step takes longer than the timed steps."""

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Throughput:
    """Measures the throughput at different widths, with the faster kind of convolution."""

    def __init__(
        self, make_module: ModuleFactory, data: DataSource, settings: TrainerSettings, spec: TrialSpec
    ) -> None:
        self._make_module, self._data, self._settings, self._spec = make_module, data, settings, spec
        self.device = device_of(data)
        self.on_gpu = self.device.type == "cuda"
        self.budget = GPU_BUDGET_SECONDS if self.on_gpu else BUDGET_SECONDS
        # On a CPU both kinds take the same time, so only one is measured.
        has_convolutions = self.on_gpu and any(isinstance(part, _CONVOLUTIONS) for part in make_module(spec).modules())
        self._kinds: tuple[Convolutions, ...] = ("grouped", "by row") if has_convolutions else ("grouped",)
        self._faster: dict[int, Convolutions] = {}

    def make_trials(self, width: int, kind: Convolutions = "grouped", *, holds_once: bool = True) -> VectorizedTrials:
        """Build vectorized trials that are copies of the measured trial with different seeds."""
        seed, settings = self._spec.seed, dataclasses.replace(self._settings, convolutions=kind)
        feed = GivenTrials([dataclasses.replace(self._spec, number=n, seed=seed + n) for n in range(width)])
        return VectorizedTrials(RowSource(self._make_module, self._data, settings, feed), width, holds_once=holds_once)

    def rate(self, width: int) -> float | None:
        """Return the trial steps per second at a width; None if memory runs out."""
        rates: dict[Convolutions, float] = {}
        failure: Exception | None = None
        for kind in self._kinds:
            try:
                rates[kind] = self._rate(width, kind)
            except torch.cuda.OutOfMemoryError:
                pass
            except Exception as error:  # the device may support only the other kind
                failure = error
            free_gpu_memory(self.on_gpu)
        if not rates and failure is not None:
            raise failure
        if not rates:
            return None
        self._faster[width] = max(rates, key=lambda kind: rates[kind])
        return max(rates.values())

    def gain_of_holding_once(self, width: int) -> float:
        """Return the speedup of rows that share their frozen parts over rows with copies."""
        kind = self.convolutions(width)
        return self._rate(width, kind) / self._rate(width, kind, holds_once=False)

    def _rate(self, width: int, kind: Convolutions, *, holds_once: bool = True) -> float:
        trials = self.make_trials(width, kind, holds_once=holds_once)
        first = trials.seconds_per_step(1)
        # A step this long is accurate enough without repetition.
        return width / (first if first > 0.2 else trials.seconds_per_step(3))

    def convolutions(self, width: int) -> Convolutions:
        """Return the faster kind of convolution at a width."""
        if width not in self._faster and len(self._kinds) > 1:
            self.rate(width)
        return self._faster.get(width, "grouped")


def measure_up(rate: Callable[[int], float | None], max_width: int, budget: float = BUDGET_SECONDS) -> dict[int, float]:
    """Measure widths 1, 2, 4, … until doubling stops increasing the rate; return the rate of each width.

    `rate` returns the trial steps per second at a width, or None if memory runs out. No width is begun after `budget`
    seconds.
    """
    rates: dict[int, float] = {}
    width, started = 1, time.perf_counter()
    while width <= max_width and time.perf_counter() - started < budget:
        measured_rate = rate(width)
        if measured_rate is None:
            break
        rates[width] = measured_rate
        # Stop only if two widths in a row gain nothing: one can be slow because of other work on the machine.
        recent = [rates[w] for w in (width, width // 2) if w in rates]
        earlier = [r for w, r in rates.items() if w < width // 2]
        if earlier and max(recent) < 1.05 * max(earlier):
            break
        width *= 2
    if not rates:
        raise torch.cuda.OutOfMemoryError("a single trial does not fit into memory")
    return rates


def measure_down(rate: Callable[[int], float | None], max_width: int, budget: float) -> dict[int, float]:
    """Measure widths from the largest down until a narrower one is slower; return the rate of each width.

    On a GPU a step takes nearly the same time for one row as for a hundred, so one of the first widths is the fastest.
    """
    rates: dict[int, float] = {}
    width, started = max_width, time.perf_counter()
    while not rates or time.perf_counter() - started < budget:
        measured_rate = rate(width)
        if measured_rate is not None:
            if rates and measured_rate < max(rates.values()):
                rates[width] = measured_rate
                break
            rates[width] = measured_rate
        if width == 1:
            break
        width = max(width // (2 if measured_rate is None else 4), 1)
    if not rates:
        raise torch.cuda.OutOfMemoryError("a single trial does not fit into memory")
    return rates
