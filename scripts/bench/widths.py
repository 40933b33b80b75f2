"""Trials a second and peak memory against the width.

python scripts/bench/widths.py [WORKLOAD ...] [--quick]

Each width is measured in a fresh process, on a CPU with one thread. Speed: the width over the median time of a step;
trials a second are those steps over a trial's steps, without evaluation. Memory: what trials of this width add at
its peak to what the process held before it was built, when data was loaded and a width of one had warmed everything
up; on CUDA by torch.cuda.max_memory_allocated, on Linux by the kernel's high-water mark of resident memory (VmHWM,
which is what `ru_maxrss` reports, but can be set back). First for training steps, then with an evaluation too.
"""

from __future__ import annotations

import ctypes
import gc
import resource
import statistics
import sys
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch
from given_trials import SpecFeed
from parts import Parts, step_seconds
from section import Section, fresh
from torch import Tensor
from workloads import QUICK_WIDTH

from dropsearch.datasets.loaders import TensorLoader
from dropsearch.training.vectorized.row_source import RowSource
from dropsearch.training.vectorized.trials import VectorizedTrials

SHORT = 2
"""Training steps of the epoch whose evaluation is looked at."""

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class ShortSource:
    """A workload's data, with epochs of a few steps."""

    def __init__(self, parts: Parts) -> None:
        self.train_part_loader, self.val_dataloader = parts.source.train_part_loader, parts.source.val_dataloader
        self._whole = parts.source.train_loader

    def train_loader(self, seed: int) -> ShortLoader:
        """Return the first steps of an epoch."""
        return ShortLoader(self._whole(seed))


class ShortLoader:
    """The first few batches of a loader."""

    def __init__(self, whole: TensorLoader) -> None:
        self._whole, self.tensors, self.batch_size = whole, whole.tensors, whole.batch_size

    def order(self, epoch: int) -> Tensor:
        """Return the examples of an epoch."""
        return self._whole.order(epoch)[: len(self) * self.batch_size]

    def __len__(self) -> int:
        return min(SHORT, len(self._whole))

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        for chosen in self.order(0).split(self.batch_size):
            yield tuple(tensor.index_select(0, chosen) for tensor in self.tensors)


class Peak:
    """The memory that was added at most since this was made, in bytes."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        gc.collect()
        if self._cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            self._before = self._reset()

    @staticmethod
    def _reset() -> int:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
        if trim:
            trim(0)  # what was freed and kept for later would hide what the trials take
        try:
            CLEAR.write_text("5")  # sets the high-water mark back to what is resident now
        except OSError:
            print("the peak of this process cannot be set back: less is seen than was used", file=sys.stderr)
        return _resident_peak()

    def __call__(self) -> int:
        """Return the bytes."""
        if self._cuda:
            torch.cuda.synchronize()
            return torch.cuda.max_memory_allocated() - self._before
        return _resident_peak() - self._before


def _resident_peak() -> int:
    if STATUS.exists():
        marks = [line.split()[1] for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
        if marks:
            return int(marks[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measured(name: str, width: int, quick: bool) -> tuple[float, int, int, int]:
    """Return trial steps a second, peak bytes of steps, peak bytes with an evaluation, and the steps of a trial."""
    parts = Parts.load(name, quick=quick)
    _short(parts, 1).fit()  # what is allocated once in a process does not count
    peak = Peak(parts.device)
    trials = _short(parts, width)
    trials.seconds_per_step(2)
    stepping = peak()
    trials.fit()
    evaluating = peak()
    del trials
    whole = parts.vectorized(width)
    step = statistics.median(step_seconds(whole, 0.1 if quick else 1.0) for _ in range(2 if quick else 5))
    return width / step, stepping, evaluating, parts.steps * parts.epochs


def _short(parts: Parts, width: int) -> VectorizedTrials:
    feed = SpecFeed(parts.specs(width), dict.fromkeys(range(width), 1))
    return VectorizedTrials(RowSource(parts.make_module, ShortSource(parts), parts.settings, feed), width)


def rows(name: str, quick: bool) -> Iterator[list[str]]:
    """Measure a workload at each width."""
    widths = (1, 2, QUICK_WIDTH) if quick else (1, 2, 4, 8, 16, 32, *((64,) if torch.cuda.is_available() else ()))
    single = 0.0
    for width in widths:
        try:
            rate, stepping, evaluating, steps = fresh(measured, name, width, quick)
        except (torch.cuda.OutOfMemoryError, BrokenProcessPool):  # or the kernel killed it
            yield [name, str(width), "out of memory", "", "", "", ""]
            return
        single = single or rate
        yield [
            name,
            str(width),
            f"{rate:,.0f}",
            f"{rate / single:.2f}",
            f"{rate / steps:.2f}",
            f"{stepping / 2**20:.1f}",
            f"{evaluating / 2**20:.1f}",
        ]


SECTION = Section(
    "Speed and memory against width",
    "One process, on a CPU one thread; trials/s without evaluation. Memory is what the trials add at their peak.",
    (
        "workload",
        "width",
        "trial steps/s",
        "times width 1",
        "trials/s",
        "peak of steps, MiB",
        "with evaluation, MiB",
    ),
    rows,
    in_own_process=False,
)

if __name__ == "__main__":
    SECTION.main()
