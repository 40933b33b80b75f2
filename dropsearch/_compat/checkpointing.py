"""Activation checkpointing: PyTorch computes a part of a forward again in the backward, without a hook for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch.utils import checkpoint as _checkpoint

Remember = Callable[[], Callable[[], AbstractContextManager[None]]]
"""Called where a checkpointed part begins; what it returns makes the context of each recomputation."""


@contextmanager
def recomputed_by(remember: Remember) -> Iterator[None]:
    """Run every recomputation of ``torch.utils.checkpoint`` in a context, while this one lasts.

    Args:
        remember: See `Remember`.
    """
    function, generator = _checkpoint.CheckpointFunction, _checkpoint._checkpoint_without_reentrant_generator

    class Reentrant:
        @staticmethod
        def apply(run: Callable[..., Any], *args: Any) -> Any:
            return function.apply(_Recomputed(run, remember(), is_first=True), *args)

    def not_reentrant(run: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        # PyTorch calls `run` itself the first time, and this only to compute it again.
        return generator(_Recomputed(run, remember(), is_first=False), *args, **kwargs)

    _checkpoint.__dict__.update(CheckpointFunction=Reentrant, _checkpoint_without_reentrant_generator=not_reentrant)
    try:
        yield
    finally:
        _checkpoint.__dict__.update(CheckpointFunction=function, _checkpoint_without_reentrant_generator=generator)


class _Recomputed:
    """A part of a forward: any call of it but the first runs in the context."""

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
