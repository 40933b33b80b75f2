"""The kind of a site, inferred from what runs before and after a drop."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import CodeType, FrameType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropsearch._compat.torch_modules import forward_hooks_of, pre_hooks_of
from dropsearch.core.records import Site

_SOFTMAX = {F.softmax, torch.softmax, Tensor.softmax}
_PRODUCTS = {F.linear, torch.addmm, torch.mm, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.einsum}
_EXP = {torch.exp, Tensor.exp, Tensor.exp_}
_DIVIDE = {torch.div, Tensor.div, Tensor.__truediv__}
_ADD = {torch.add, Tensor.add, Tensor.add_}


@dataclass(frozen=True)
class _Dropped:
    """The last result of a drop, kept while a following sum may still determine its kind."""

    site: str
    result: Any
    is_certain: bool
    kind_if_added: Callable[[], str]


class KindInference:
    """Follows the calls around drops and corrects the kinds of their sites in `sites`.

    Create it before hooks are registered on the model: calls in a user's hooks are ignored.
    """

    def __init__(self, model: nn.Module, sites: dict[str, Site]) -> None:
        self._sites = sites
        self._hooks = _UserHooks(model)
        self._softmaxed: Any = None
        self._exponential: Any = None
        self._dropped: _Dropped | None = None
        self.last_layer = ""
        """Kind of the last layer that ran."""

    @property
    def last_drop(self) -> object:
        """The last drop, to compare by identity."""
        return self._dropped

    def is_softmaxed(self, x: Tensor) -> bool:
        """Return whether a tensor is the result of the last softmax."""
        return x is self._softmaxed

    def drop(self, site: str, result: Any, kind_if_added: Callable[[], str], *, is_certain: bool = False) -> None:
        """Record the result of a drop, and the kind of its site if other activations are added to it."""
        self._dropped = _Dropped(site, result, is_certain, kind_if_added)

    def see(self, func: Any, args: tuple[Any, ...], result: Any, *, in_own_code: Callable[[], bool]) -> None:
        """Infer the kind of a drop from a call before or after it, which does not drop.

        `in_own_code` returns whether an operation with its own dropout code makes the call.
        """
        if self._hooks.running():
            return
        if func in _SOFTMAX or (func in _DIVIDE and args[0] is self._exponential):
            self._softmaxed = result  # also for softmax over groups, such as the edges of a node
        elif func in _EXP:
            self._exponential = result
        if func in _PRODUCTS and any(isinstance(arg, nn.Parameter) for arg in args):
            self.last_layer = "hidden"  # also for other implementations of this layer
        dropped = self._dropped
        if dropped is None or not any(arg is dropped.result for arg in args):
            return
        is_certain = dropped.is_certain or self._sites[dropped.site].kind == "embedding"
        if func in _ADD and _activations_added(args, dropped.result) and not is_certain:
            self._sites[dropped.site] = replace(self._sites[dropped.site], kind=dropped.kind_if_added())
        if in_own_code():  # stochastic depth is between a branch and its sum
            if isinstance(result, Tensor) and result.shape == dropped.result.shape:
                self._dropped = replace(dropped, result=result)
        elif isinstance(result, Tensor | tuple):
            self._dropped = None  # once used elsewhere, it is no residual branch


def _activations_added(args: tuple[Any, ...], dropped: Tensor) -> bool:
    """Return whether a sum adds other activations to dropped ones (a residual branch, not a bias)."""
    if len(args) < 2 or not any(arg is dropped for arg in args[:2]):
        return False
    other = args[1] if args[0] is dropped else args[0]
    return isinstance(other, Tensor) and not isinstance(other, nn.Parameter) and other.shape == dropped.shape


class _UserHooks:
    """Detects whether a user's forward hook of a model is running."""

    def __init__(self, model: nn.Module) -> None:
        parts = (part for part in model.modules() if not isinstance(part, torch.jit.ScriptModule))
        hooks = [hook for part in parts for hook in (*forward_hooks_of(part).values(), *pre_hooks_of(part).values())]
        self._codes = {code for hook in hooks if (code := _code_of(hook)) is not None}

    def running(self) -> bool:
        frame: FrameType | None = sys._getframe(1) if self._codes else None
        while frame is not None and frame.f_code not in self._codes:
            frame = frame.f_back
        return frame is not None


def _code_of(hook: Any) -> CodeType | None:
    while isinstance(hook, functools.partial):
        hook = hook.func
    function = getattr(hook, "__func__", hook)
    code = getattr(function, "__code__", None) or getattr(type(hook).__call__, "__code__", None)
    return code if isinstance(code, CodeType) else None
