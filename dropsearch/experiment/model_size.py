"""A check that training a model fits into memory, before the model is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dropsearch.core.errors import InputError
from dropsearch.training.planning.memory import free_memory

BYTES = 16
"""Bytes per parameter: value, gradient and two optimizer values in float32."""


def check_size(build: Callable[[], Any], name: str) -> None:
    """Build a module without allocating its parameters, and check that training fits into the free memory.

    Args:
        build: Builds the module, without other effects.
        name: Name of the module in messages.

    Raises:
        InputError: The model does not fit.
    """
    try:
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in build().parameters())
    except Exception:  # the normal build reports the error
        return
    free = free_memory(torch.device("cpu"))
    if BYTES * count > free:
        raise InputError(
            f"model={name} must fit into {free / 2**30:.1f} GiB of free memory, and has {count:,} parameters, which "
            f"take {BYTES * count / 2**30:.1f} GiB in training: make its layers smaller or fewer"
        )
