"""Process-wide state that user code may change: it is restored after each trial."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch


@contextmanager
def process_state_kept() -> Iterator[None]:
    """Restore working folder, environment, and torch's default dtype, grad mode and determinism at the end."""
    environment, dtype, grad = dict(os.environ), torch.get_default_dtype(), torch.is_grad_enabled()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    with working_folder_kept():
        try:
            yield
        finally:
            if dict(os.environ) != environment:
                os.environ.clear()
                os.environ.update(environment)
            torch.set_default_dtype(dtype)
            torch.set_grad_enabled(grad)
            torch.use_deterministic_algorithms(deterministic, warn_only=warns)


@contextmanager
def working_folder_kept() -> Iterator[None]:
    """Restore the working folder at the end, because paths of a run may be relative to it."""
    try:
        folder = os.getcwd()
    except OSError:  # it was removed
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):
            os.chdir(folder)
