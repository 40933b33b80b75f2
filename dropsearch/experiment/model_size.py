"""Whether a model can be trained in the memory of this machine: asked before it is built."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dropsearch.core.errors import InputError
from dropsearch.training.planning.memory import free_memory

BYTES = 16
"""For each parameter: itself, its gradient, and two numbers of the optimizer, in float32."""


def check_size(build: Callable[[], Any], name: str) -> None:
    """Build a module without memory for its parameters, and check that training it fits into what is free.

    Args:
        build: Builds the module; it does nothing else.
        name: What messages call it.

    Raises:
        InputError: It does not fit.
    """
    try:
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in build().parameters())
    except Exception:  # what cannot be built like this is built as it is, which says what is wrong
        return
    free = free_memory(torch.device("cpu"))
    if BYTES * count > free:
        raise InputError(
            f"model={name} must fit into {free / 2**30:.1f} GiB of free memory, and has {count:,} parameters, which "
            f"take {BYTES * count / 2**30:.1f} GiB in training: make its layers smaller or fewer"
        )
