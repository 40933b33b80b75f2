"""How many steps of trials a second arrays of different widths do."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import torch
from torch import nn

from dropsearch.core.records import EpochMetrics, TrialResult, TrialSpec
from dropsearch.training.protocols import Convolutions, RowDataSource, TrainerSettings
from dropsearch.training.sequential import ModuleFactory
from dropsearch.training.vectorized.trials import VectorizedTrials, release

MEASURING_SECONDS = 1.5
"""No wider array is tried once measuring has taken this long."""
ON_GPU_SECONDS = 30.0
"""The same on a GPU, where recording a step takes longer than all steps that are timed."""

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Throughput:
    """Measures what arrays of different widths do in a second, with the kind of convolution that is faster."""

    def __init__(
        self, make_module: ModuleFactory, data: RowDataSource, settings: TrainerSettings, spec: TrialSpec
    ) -> None:
        self._make_module, self._data, self._settings, self._spec = make_module, data, settings, spec
        self.device = data.train_loader(spec.seed).tensors[0].device
        self.on_gpu = self.device.type == "cuda"
        self.budget = ON_GPU_SECONDS if self.on_gpu else MEASURING_SECONDS
        # On a CPU both kinds take the same time, for there it is the convolution itself that takes it.
        convolves = self.on_gpu and any(isinstance(part, _CONVOLUTIONS) for part in make_module(spec).modules())
        self._kinds: tuple[Convolutions, ...] = ("grouped", "by row") if convolves else ("grouped",)
        self._faster: dict[int, Convolutions] = {}

    def array(self, width: int, kind: Convolutions = "grouped") -> VectorizedTrials:
        """Make an array of copies of one trial."""
        settings = dataclasses.replace(self._settings, convolutions=kind)
        return VectorizedTrials(self._make_module, self._data, settings, _Copies(self._spec, width), width)

    def rate(self, width: int) -> float | None:
        """Return the steps of trials a second at a width; None where memory ends."""
        found: dict[Convolutions, float] = {}
        problem: Exception | None = None
        for kind in self._kinds:
            try:
                found[kind] = self._rate(width, kind)
            except torch.cuda.OutOfMemoryError:
                pass
            except Exception as error:  # the device's library may lack one kind and have the other
                problem = error
            release(self.on_gpu)
        if not found and problem is not None:
            raise problem
        if not found:
            return None
        self._faster[width] = max(found, key=lambda kind: found[kind])
        return max(found.values())

    def _rate(self, width: int, kind: Convolutions) -> float:
        array = self.array(width, kind)
        first = array.seconds_a_step(1)
        # Where one step takes this long, its first is as good a measure as any.
        return width / (first if first > 0.2 else array.seconds_a_step(3))

    def convolutions(self, width: int) -> Convolutions:
        """Return the faster kind at a width."""
        if width not in self._faster and len(self._kinds) > 1:
            self.rate(width)
        return self._faster.get(width, "grouped")


def widest(rate: Callable[[int], float | None], most: int, budget: float = MEASURING_SECONDS) -> dict[int, float]:
    """Double the width as long as that gains something; return what was measured, by width.

    Args:
        rate: Trial steps per second at a width, None where memory ends.
        most: The largest width to try.
        budget: No wider array is tried once measuring has taken this many seconds.
    """
    rates: dict[int, float] = {}
    width, started = 1, time.perf_counter()
    while width <= most and time.perf_counter() - started < budget:
        measured_rate = rate(width)
        if measured_rate is None:
            break
        rates[width] = measured_rate
        # One width may be unlucky on a busy machine; that two in a row gain nothing is no accident.
        recent = [rates[w] for w in (width, width // 2) if w in rates]
        earlier = [r for w, r in rates.items() if w < width // 2]
        if earlier and max(recent) < 1.05 * max(earlier):
            break
        width *= 2
    if not rates:
        raise torch.cuda.OutOfMemoryError("not even one row fits into memory")
    return rates


def widest_from_above(rate: Callable[[int], float | None], most: int, budget: float) -> dict[int, float]:
    """Try widths from the greatest down, as long as a narrower array is the faster one; return what was measured.

    On a GPU, where a step takes nearly as long for one row as for a hundred, the first or second is the best.

    Args:
        rate: Trial steps per second at a width, None where memory ends.
        most: The largest width to try.
        budget: No narrower array is tried once measuring has taken this many seconds.
    """
    rates: dict[int, float] = {}
    width, started = most, time.perf_counter()
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
        raise torch.cuda.OutOfMemoryError("not even one row fits into memory")
    return rates


class _Copies:
    """A feed of one trial many times, for measuring."""

    def __init__(self, spec: TrialSpec, count: int) -> None:
        self._specs = [dataclasses.replace(spec, number=n, seed=spec.seed + n) for n in range(count)]

    most_at_once: int | None = None

    def ask(self, count: int) -> list[TrialSpec]:
        return [self._specs.pop() for _ in range(min(count, len(self._specs)))]

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        return [False for _ in reports]

    def tell(self, results: Sequence[TrialResult]) -> None:
        return None

    def cancelled(self) -> bool:
        return False
