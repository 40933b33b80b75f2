"""Hooks for activation checkpointing, which recomputes parts of the forward pass during backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch.utils import checkpoint as _checkpoint

Remember = Callable[[], Callable[[], AbstractContextManager[None]]]
"""Called when a checkpointed part begins; returns a factory for the context of each recomputation."""


@contextmanager
def recomputed_by(remember: Remember) -> Iterator[None]:
    """Run each recomputation of ``torch.utils.checkpoint`` in a context given by `remember`.

    Args:
        remember: See `Remember`.
    """
    function, generator = _checkpoint.CheckpointFunction, _checkpoint._checkpoint_without_reentrant_generator

    class Reentrant:
        @staticmethod
        def apply(run: Callable[..., Any], *args: Any) -> Any:
            return function.apply(_Recomputed(run, remember(), is_first=True), *args)

    def not_reentrant(run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # PyTorch makes the first call of `run` itself and calls this function to recompute.
        return generator(_Recomputed(run, remember(), is_first=False), *args, **kwargs)

    _checkpoint.__dict__.update(CheckpointFunction=Reentrant, _checkpoint_without_reentrant_generator=not_reentrant)
    try:
        yield
    finally:
        _checkpoint.__dict__.update(CheckpointFunction=function, _checkpoint_without_reentrant_generator=generator)


class _Recomputed:
    """A checkpointed part of a forward pass; every call but the first runs in the context."""

    def __init__(
        self, run: Callable[..., Any], again: Callable[[], AbstractContextManager[None]], *, is_first: bool
    ) -> None:
        self._run, self._again, self._is_first = run, again, is_first

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._is_first:
            self._is_first = False
            return self._run(*args, **kwargs)
        with self._again():
            return self._run(*args, **kwargs)
