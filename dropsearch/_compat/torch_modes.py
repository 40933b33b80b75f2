"""Active `TorchFunctionMode`s, and calls that they would miss: in compiled code and in recomputed parts."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import wraps
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch._utils import _rebuild_tensor
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode_temporarily
from torch.utils import checkpoint as _checkpoint

from dropsearch._compat.python_calls import showing


def is_active(mode: TorchFunctionMode) -> bool:
    """Return whether a mode sees current calls. A mode does not see calls that it makes while handling one."""
    return any(each is mode for each in _get_current_function_mode_stack())


def without_modes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs with all function modes disabled."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            for _ in _get_current_function_mode_stack():
                stack.enter_context(_pop_mode_temporarily())
            return function(*args, **kwargs)

    return run


@contextmanager
def as_it_is_written() -> Iterator[None]:
    """Run code that was given to ``torch.compile``, before or inside the context, as it is written.

    Compiled code shows no calls to function modes, or is compiled anew for each of their states. The compiler is not
    imported for this, which takes seconds: where it has not been, nothing was compiled yet.
    """
    with ExitStack() as stack:

        def eager() -> None:
            stack.enter_context(torch.compiler.set_stance("force_eager"))

        if "torch._dynamo" in sys.modules:
            eager()
        else:
            stack.enter_context(showing([torch.compile], _before_the_first(eager)))
        yield


def _before_the_first(begin: Callable[[], None]) -> Any:
    """Return an answer to calls of a function that runs `begin` once before the first of them."""
    begun = False

    def answer(_: Any, run: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        nonlocal begun
        if not begun:
            begun = True
            begin()
        return run(*args, **kwargs)

    return answer


def is_unpickling(frame: FrameType) -> bool:
    """Return whether a frame of Python rebuilds a tensor around its storage, which fixes the type."""
    return frame.f_code is _rebuild_tensor.__code__


def backward(
    tensor: Tensor,
    gradient: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Run ``Tensor.backward`` without dispatching it to function modes again."""
    torch.autograd.backward(tensor, gradient, retain_graph, create_graph, inputs=inputs)


Remember = Callable[[], Callable[[], AbstractContextManager[None]]]
"""Called when a checkpointed part begins; returns a factory for the context of each recomputation."""


@contextmanager
def recomputed_by(remember: Remember) -> Iterator[None]:
    """Run each recomputation of ``torch.utils.checkpoint`` in a context given by `remember`."""
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


@contextmanager
def not_recomputed() -> Iterator[None]:
    """Keep what ``torch.utils.checkpoint`` would recompute, for code whose backward pass runs outside of it."""

    class Once:
        @staticmethod
        def apply(run: Callable[..., Any], preserve: bool, *args: Any) -> Any:
            return run(*args)

    def once(run: Callable[..., Any], *args: Any, **kwargs: Any) -> Iterator[None]:
        yield  # then PyTorch calls `run`

    before = {name: _checkpoint.__dict__[name] for name in _KINDS}
    _checkpoint.__dict__.update(dict(zip(_KINDS, (Once, once), strict=True)))
    try:
        yield
    finally:
        _checkpoint.__dict__.update(before)


_KINDS = ("CheckpointFunction", "_checkpoint_without_reentrant_generator")
"""The two ways in which PyTorch recomputes."""


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
