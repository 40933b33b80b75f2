"""Cleanup after a failed CUDA graph capture."""

from __future__ import annotations

import contextlib

import torch


def abandon_capture(device: torch.device, pool: tuple[int, int]) -> None:
    """Clean up after a failed capture in PyTorch versions before 2.12.

    Otherwise the allocator stays in capture mode and the default generator refuses to draw.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    for undo in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        with contextlib.suppress(RuntimeError, AttributeError):
            getattr(torch._C, undo)(index, pool)
    generator = torch.cuda.default_generators[index]
    with contextlib.suppress(RuntimeError):
        generator.graphsafe_set_state(generator.clone_state())
