"""Temporary seeds for the global random generators of Python, NumPy and torch, which user code draws from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of Python, NumPy and torch; restore their states when the context exits."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        if any(each.is_available() for each in (torch.cuda, torch.backends.mps, torch.xpu)):
            torch.manual_seed(seed)
        else:  # for a device that is not there torch would keep the stack of this call
            torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def torch_states() -> tuple[bytes, ...]:
    """Return the states of torch's global generators, on the CPU and on each device that is in use."""
    states = [torch.default_generator.get_state()]
    if torch.cuda.is_initialized():
        states += [generator.get_state() for generator in torch.cuda.default_generators]
    return tuple(state.numpy().tobytes() for state in states)


def generator_states() -> dict[str, object]:
    """Return the states of the global generators by name, to detect whether code draws random numbers."""
    kind, keys, *rest = np.random.get_state()
    states: dict[str, object] = {
        "random": random.getstate(),
        "numpy.random": (kind, np.asarray(keys).tobytes(), *rest),
        "torch": torch.random.get_rng_state().numpy().tobytes(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["torch.cuda"] = tuple(state.numpy().tobytes() for state in torch.cuda.get_rng_state_all())
    return states
