"""Memory needs of vectorized training, measured at widths 1 and 2."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dropsearch.core.errors import InputError
from dropsearch.training.vectorized.trials import VectorizedTrials, free_gpu_memory

CGROUP = Path("/sys/fs/cgroup")
"""Control group of this process, with the memory limit of its container (Linux, cgroup v2)."""
SHARE = 0.8
"""Share of the free memory that training may use; the rest is for evaluation and other processes."""

NOTABLE = 2**16
"""Minimum size of shared parts to mention, in bytes."""


@dataclass(frozen=True)
class Memory:
    """Memory of vectorized training in bytes: a fixed part, and a part per row."""

    fixed: int
    per_row: int
    held_once: int = 0
    """Part of `fixed`: frozen parameters and buffers that all rows share."""

    @property
    def holds_parts_once(self) -> bool:
        """Whether rows share more than a few numbers, such as those of a mask."""
        return self.held_once >= NOTABLE

    def total(self, width: int) -> int:
        """Return the memory in bytes at a width."""
        return self.fixed + width * self.per_row

    def max_width(self, free: int) -> int:
        """Return how many trials fit into `free` bytes, at least 1."""
        return max(1, int((SHARE * free - self.fixed) // max(self.per_row, 1)))


def measure_memory(make_trials: Callable[[int], VectorizedTrials]) -> Memory:
    """Measure the memory that one and two trials take during a training step.

    On CUDA this is the peak of the memory reserved by the allocator. The CPU allocator has no such statistics; there it
    is the size of rows and optimizer state, of the tensors that autograd saves for the backward pass, and of batches
    that are read and not yet trained on, also those that worker processes read ahead.
    """
    (one, _), (two, held_once) = (_measure(make_trials, width) for width in (1, 2))
    per_row = max(two - one, 0)
    return Memory(max(one - per_row, 0), per_row, held_once)


def _measure(make_trials: Callable[[int], VectorizedTrials], width: int) -> tuple[int, int]:
    trials = make_trials(width)
    shared = sum(_bytes(tensor) for tensor in trials.stack.rows.shared.values())
    if trials.stack.rows.flat.is_cuda:
        return _peak_reserved(trials), shared
    saved = _SavedStorages()
    with torch.autograd.graph.saved_tensors_hooks(saved.add, lambda tensor: tensor):
        trials.seconds_per_step(1)
    state = saved.bytes_without(trials.stack.state()) + sum(_bytes(tensor) for tensor in trials.stack.state())
    return state + trials.stack.batches.held(), shared


def _peak_reserved(trials: VectorizedTrials) -> int:
    """Return the peak of reserved CUDA memory, in bytes, during a training step and an evaluation."""
    free_gpu_memory(on_gpu=True)
    before = torch.cuda.memory_reserved() - sum(_bytes(tensor) for tensor in trials.stack.state())
    torch.cuda.reset_peak_memory_stats()
    trials.seconds_per_step(1)
    trials.stack.evaluate()
    return max(torch.cuda.max_memory_reserved() - before, 0)


class _SavedStorages:
    """Collects the storages of the tensors that autograd saves, each storage once."""

    def __init__(self) -> None:
        self._storages: dict[int, torch.UntypedStorage] = {}

    def add(self, tensor: Tensor) -> Tensor:
        # Keeping the storage alive prevents another one from getting the same address.
        storage = tensor.untyped_storage()
        self._storages[storage.data_ptr()] = storage
        return tensor

    def bytes_without(self, tensors: list[Tensor]) -> int:
        excluded = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        return sum(storage.nbytes() for pointer, storage in self._storages.items() if pointer not in excluded)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def free_memory(device: torch.device, processes: int = 1) -> int:
    """Return the free memory of a device in bytes, for each of `processes` processes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // processes
    return _free_host_memory() // processes


def _free_host_memory() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kibibytes: dict[str, Any] = {line.split(":")[0]: line.split()[1] for line in lines}
        return int(min(int(kibibytes["MemAvailable"]) * 1024, _free_cgroup_memory()))
    except (OSError, KeyError, IndexError, ValueError):  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _free_cgroup_memory() -> float:
    try:
        limit, used = ((CGROUP / f"memory.{name}").read_text() for name in ("max", "current"))
        return max(int(limit) - int(used), 0)
    except (OSError, ValueError):  # no control group, cgroup v1, or no limit
        return math.inf


BYTES_PER_PARAMETER = 16
"""Bytes per parameter: value, gradient and two optimizer values in float32."""


def check_size(build: Callable[[], Any], name: str) -> None:
    """Raise `InputError` if a module, built here without its parameters, does not fit into free memory in training."""
    try:
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in build().parameters())
    except Exception:  # the normal build reports the error
        return
    free = free_memory(torch.device("cpu"))
    if BYTES_PER_PARAMETER * count > free:
        raise InputError(
            f"model={name} must fit into {free / 2**30:.1f} GiB of free memory, and has {count:,} parameters, which "
            f"take {BYTES_PER_PARAMETER * count / 2**30:.1f} GiB in training: make its layers smaller or fewer"
        )
