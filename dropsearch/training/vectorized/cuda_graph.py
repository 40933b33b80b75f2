"""Work on a GPU that is recorded once as a CUDA graph and then played back: launching it takes longer than doing it.

What is recorded may not ask the device for a number, and everything that it reads and writes stays where it is.
"""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Callable
from functools import cache

import torch

log = logging.getLogger(__name__)

WARM_UP = 3
"""Runs that are launched part by part before one is recorded: libraries choose their kernels and memory in them."""


class Recorded:
    """Runs `work` again and again: on CUDA, after a few runs, by playing back a recording of it.

    Args:
        work: What is done. It reads and writes tensors that stay where they are.
        device: Where. On any other device than CUDA the work runs as it is written.
        name: What a message calls it.
        warm_up: Runs before it is recorded.
    """

    def __init__(self, work: Callable[[], None], device: torch.device, name: str, warm_up: int = WARM_UP) -> None:
        self._work, self._device, self.name = work, device, name
        self._graph: torch.cuda.CUDAGraph | None = None
        self._warm_up = warm_up
        self.problem = ""
        """Why the work is not recorded, where that was tried: a module may ask the device for a number."""

    def __call__(self) -> None:
        """Do the work once."""
        if self._device.type == "cuda" and self._graph is None and not self.problem:
            if self._warm_up > 0:
                self._warm_up -= 1
                self._aside()
                return
            self._record()
        if self._graph is not None:
            self._graph.replay()
        else:
            self._work()

    def _aside(self) -> None:
        """Do the work as it is written, in the stream in which it will be recorded."""
        stream = _side_stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            self._work()
        torch.cuda.current_stream(self._device).wait_stream(stream)

    def _record(self) -> None:
        """Record the work, which does nothing yet; where that cannot be done, say why in `problem`."""
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        before = torch.cuda.current_stream(self._device)
        gc.collect()  # a recording that is destroyed while another is made would spoil it
        collecting = gc.isenabled()
        gc.disable()
        try:
            # Another thread may call CUDA meanwhile (a loader that pins memory): that is no part of this.
            with torch.cuda.graph(
                graph, pool=pool, stream=_side_stream(self._device), capture_error_mode="thread_local"
            ):
                self._work()
            self._graph = graph
        except RuntimeError as error:
            torch.cuda.set_stream(before)
            abandon_capture(self._device, pool)
            first = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            if isinstance(first, torch.cuda.OutOfMemoryError):
                raise first from None
            self.problem = " ".join(str(first).split())[:200]
            _warn_once(f"The {self.name} cannot be recorded as a CUDA graph, so it is launched: {self.problem}")
            torch.cuda.synchronize(self._device)
        finally:
            if collecting:
                gc.enable()


def abandon_capture(device: torch.device, pool: tuple[int, int]) -> None:
    """Undo what a capture that failed leaves behind in torch before 2.12.

    There the allocator goes on as if the capture were under way, and the default generator refuses to draw.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    for undo in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        with contextlib.suppress(RuntimeError, AttributeError):
            getattr(torch._C, undo)(index, pool)
    generator = torch.cuda.default_generators[index]
    with contextlib.suppress(RuntimeError):
        generator.graphsafe_set_state(generator.clone_state())


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the one stream of all warm-ups and recordings: the allocator keeps memory for each stream apart."""
    return torch.cuda.Stream(device)


@cache
def _warn_once(message: str) -> None:
    log.warning(message)
