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
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


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
