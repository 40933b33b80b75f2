"""The kind of a site, inferred from its name, the surrounding layers, and what runs before and after a drop."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from types import CodeType, FrameType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropsearch._compat.torch_modules import ConvBase, forward_hooks_of, pre_hooks_of
from dropsearch.core.errors import InputError, close_match
from dropsearch.core.records import Site
from dropsearch.core.records.arms import KINDS

_LAYER_KINDS: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (
    ((ConvBase,), "conv"),
    ((nn.RNNBase, nn.RNNCellBase), "rnn"),
    ((nn.Embedding, nn.EmbeddingBag), "embedding"),
    ((nn.MultiheadAttention,), "residual"),
    ((nn.Linear, nn.Bilinear), "hidden"),
)

_ALIASES = {"attn": "attention", "emb": "embedding", "embed": "embedding", "embeddings": "embedding"}
"""Words in names, which are weaker evidence than the surrounding layers."""


def layer_kind(module: nn.Module) -> str:
    """Return the kind of sites after a layer; empty for a module without layer weights."""
    return next((kind for types, kind in _LAYER_KINDS if isinstance(module, types)), "")


def guess_kind(site: str, layer_before: str, *, weights: bool = False, added: bool = False, flat: bool = False) -> str:
    """Infer a site's kind from its activations, otherwise from its name, otherwise from the surrounding layers.

    Args:
        site: The site's name.
        layer_before: The kind of the last layer that ran; empty if none did.
        weights: Whether attention weights are dropped, directly after a softmax.
        added: Whether the result is added to another tensor of activations.
        flat: Whether the activations are one vector per example.
    """
    if weights:
        return "attention"
    words = [word.rstrip("0123456789") for word in reversed(re.split(r"[._#]", site.lower()))]
    named = [word for word in words if word in KINDS]
    branch = added and layer_before not in ("", "embedding")
    # A dropout before a sum does not drop attention weights, whatever the name of the block.
    if named and not (branch and named[0] == "attention"):
        return named[0]
    if branch:
        return "residual"
    aliases = [_ALIASES[word] for word in words if word in _ALIASES]
    if aliases:
        return aliases[0]
    # Flattened features are inputs of linear layers, even after a convolution.
    return "hidden" if layer_before == "conv" and flat else layer_before or "input"


def with_kinds(sites: Iterable[Site], kinds: Mapping[str, str], key: str = "kinds") -> tuple[Site, ...]:
    """Return the sites with user-supplied kinds, by site name or pattern such as ``encoder.*``; the first match counts.

    Messages call the setting `key`.

    Raises:
        InputError: A kind is unknown, or a name or pattern matches no site.
    """
    sites = tuple(sites)
    if not isinstance(kinds, Mapping):
        raise InputError(
            f'{key} must be a kind by site name or pattern, got {kinds!r}: for example {{"encoder.*": "residual"}}'
        )
    for pattern, kind in kinds.items():
        if kind not in KINDS:
            raise InputError(
                f'{key}["{pattern}"] must be one of {", ".join(KINDS)}, got "{kind}"{close_match(kind, KINDS)}'
            )
        if not any(fnmatchcase(site.name, pattern) for site in sites):
            names = [site.name for site in sites]
            raise InputError(
                f'{key} must name sites of the module, got "{pattern}"{close_match(pattern, names)}: '
                f"its sites are {', '.join(names) or 'none'}"
            )
    chosen = {
        site.name: next((kind for pattern, kind in kinds.items() if fnmatchcase(site.name, pattern)), site.kind)
        for site in sites
    }
    return tuple(replace(site, kind=chosen[site.name]) for site in sites)


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
