"""What memory an array takes, measured at widths 1 and 2."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dropsearch.training.vectorized.trials import VectorizedTrials, release

CONTAINER = Path("/sys/fs/cgroup")
"""Where Linux says what a container may use."""
SHARE = 0.8
"""Of the free memory, what an array may take: the rest is for evaluation and for what else runs."""


@dataclass(frozen=True)
class Memory:
    """Bytes that an array takes: `fixed` whatever its width, and `a_row` for each trial."""

    fixed: int
    a_row: int

    def total(self, width: int) -> int:
        """Return the bytes of an array of a width."""
        return self.fixed + width * self.a_row

    def widest(self, free: int) -> int:
        """Return how many trials fit, at least 1."""
        return max(1, int((SHARE * free - self.fixed) // max(self.a_row, 1)))


def measured(make_array: Callable[[int], VectorizedTrials]) -> Memory:
    """Measure what arrays of one and of two trials take while they train a step.

    On CUDA it is what the allocator reserves at most. On a CPU, whose allocator tells nothing, it is what the rows
    and their optimisers keep and what the step saves for its backward pass.
    """
    one, two = (_taken(make_array, width) for width in (1, 2))
    a_row = max(two - one, 0)
    return Memory(max(one - a_row, 0), a_row)


def _taken(make_array: Callable[[int], VectorizedTrials], width: int) -> int:
    array = make_array(width)
    if array.rows.flat.is_cuda:
        return _peak(array)
    saved = _Saved()
    with torch.autograd.graph.saved_tensors_hooks(saved.note, lambda tensor: tensor):
        array.seconds_a_step(1)
    return saved.bytes_apart_from(array.state()) + sum(_bytes(tensor) for tensor in array.state())


def _peak(array: VectorizedTrials) -> int:
    """Return what the device had reserved at most while an array trained a step and was evaluated."""
    release(on_gpu=True)
    before = torch.cuda.memory_reserved() - sum(_bytes(tensor) for tensor in array.state())
    torch.cuda.reset_peak_memory_stats()
    array.seconds_a_step(1)
    array.evaluated()
    return max(torch.cuda.max_memory_reserved() - before, 0)


class _Saved:
    """Counts what autograd saves, each storage once."""

    def __init__(self) -> None:
        self._storages: dict[int, torch.UntypedStorage] = {}

    def note(self, tensor: Tensor) -> Tensor:
        # Held until all are counted: else another could lie where a first one lay.
        storage = tensor.untyped_storage()
        self._storages[storage.data_ptr()] = storage
        return tensor

    def bytes_apart_from(self, tensors: list[Tensor]) -> int:
        known = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        return sum(storage.nbytes() for place, storage in self._storages.items() if place not in known)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def free_memory(device: torch.device, processes: int = 1) -> int:
    """Return the bytes that each of `processes` may take on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // processes
    return _free_here() // processes


def _free_here() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        told: dict[str, Any] = {line.split(":")[0]: line.split()[1] for line in lines}
        return int(min(int(told["MemAvailable"]) * 1024, _left_in_container()))
    except (OSError, KeyError, IndexError, ValueError):  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _left_in_container() -> float:
    try:
        allowed, used = ((CONTAINER / f"memory.{name}").read_text() for name in ("max", "current"))
        return max(int(allowed) - int(used), 0)
    except (OSError, ValueError):  # no container, another version of control groups, or no limit
        return math.inf
