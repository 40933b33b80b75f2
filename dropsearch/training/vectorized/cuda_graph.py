"""A callable that is captured once as a CUDA graph and then replayed.

For small networks, launching kernels takes longer than running them; replaying a graph needs one launch. Captured code
must not copy a value from the device to the host, and its input and output tensors must keep their addresses.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from functools import cache

import torch

from dropsearch._compat.torch_modules import abandon_capture

log = logging.getLogger(__name__)

WARMUP_RUNS = 3
"""Ordinary runs before the capture, in which libraries select kernels and allocate workspaces."""


class GraphedCallable:
    """Runs a function repeatedly. On CUDA it is captured after a few runs, and then replayed as a CUDA graph.

    The tensors that the function reads and writes must keep their addresses.
    """

    def __init__(
        self, function: Callable[[], None], device: torch.device, name: str, warmup_runs: int = WARMUP_RUNS
    ) -> None:
        self._function, self._device, self.name = function, device, name
        self._graph: torch.cuda.CUDAGraph | None = None
        self._warmup_runs = warmup_runs
        self.capture_error = ""
        """Why the capture failed, for example because a module copies a value to the host; else empty."""

    def __call__(self) -> None:
        """Run the function once."""
        if self._device.type == "cuda" and self._graph is None and not self.capture_error:
            if self._warmup_runs > 0:
                self._warmup_runs -= 1
                self._run_on_side_stream()
                return
            self._capture()
        if self._graph is not None:
            self._graph.replay()
        else:
            self._function()

    def _run_on_side_stream(self) -> None:
        stream = _side_stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            self._function()
        torch.cuda.current_stream(self._device).wait_stream(stream)

    def _capture(self) -> None:
        """Capture the function without running it; if that fails, store the reason in `capture_error`."""
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        previous_stream = torch.cuda.current_stream(self._device)
        gc.collect()  # destroying another graph during the capture would invalidate it
        gc_was_enabled = gc.isenabled()
        gc.disable()
        try:
            # thread_local: CUDA calls of other threads (a loader that pins memory) must not fail the capture.
            with torch.cuda.graph(
                graph, pool=pool, stream=_side_stream(self._device), capture_error_mode="thread_local"
            ):
                self._function()
            self._graph = graph
        except RuntimeError as error:
            torch.cuda.set_stream(previous_stream)
            abandon_capture(self._device, pool)
            cause = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            if isinstance(cause, torch.cuda.OutOfMemoryError):
                raise cause from None
            self.capture_error = " ".join(str(cause).split())[:200]
            _warn_once(
                f"Cannot capture the {self.name} as a CUDA graph; running it without one, which is slower: "
                f"{self.capture_error}"
            )
            torch.cuda.synchronize(self._device)
        finally:
            if gc_was_enabled:
                gc.enable()


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream shared by all warm-up runs and captures, since the allocator has a memory pool per stream."""
    return torch.cuda.Stream(device)


@cache
def _warn_once(message: str) -> None:
    log.warning(message)
