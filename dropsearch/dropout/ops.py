"""The functions through which PyTorch drops activations, and what each of them does with a mask."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dropsearch.dropout.rates import Rate

Masker = Callable[[torch.Size, Tensor], Tensor]
"""Given the shape of a mask and the activations it is for, returns int16 random bits of that shape."""

SELU_SATURATION = -1.7580993408473766
"""What SELU tends to at minus infinity: the value that alpha dropout drops to (Klambauer et al. 2017)."""


@dataclass(frozen=True)
class DropCall:
    """One call of a dropout function, read into one form."""

    form: str
    """element, channel, alpha, feature_alpha or attention."""
    input: Tensor
    rate: float
    training: bool | None
    """None where the function has no such argument: then the module that calls decides."""
    inplace: bool = False
    attention: Mapping[str, Any] | None = None

    @property
    def mask_shape(self) -> torch.Size:
        """The shape of the mask: that of the input, with 1 where whole channels are dropped."""
        if self.form == "attention":
            key = (self.attention or {})["key"]
            return torch.Size((*self.input.shape[:-1], key.shape[-2]))
        if self.form in ("element", "alpha"):
            return self.input.shape
        return torch.Size((*self.input.shape[:2], *(1 for _ in self.input.shape[2:])))

    def drop(self, rate: Rate, bits: Masker) -> Tensor:
        """Return what the call returns when it drops at `rate` with the mask made of `bits`."""
        if self.form == "attention":
            return attend(**dict(self.attention or {}), rate=rate, bits=bits(self.mask_shape, self.input))
        x, field = self.input, bits(self.mask_shape, self.input)
        if self.form in ("alpha", "feature_alpha"):
            return self._into_input(alpha_drop(x, rate, field))
        return self._into_input((x * rate.mask(field, x.dtype)).to(x.dtype))

    def _into_input(self, result: Tensor) -> Tensor:
        return self.input.copy_(result) if self.inplace else result


def alpha_drop(x: Tensor, rate: Rate, bits: Tensor) -> Tensor:
    """Drop to SELU's negative saturation and rescale to keep mean and variance (Klambauer et al. 2017)."""
    keep, p = rate.keep(bits, x.dtype), rate.value
    a = ((1 - p) * (1 + p * SELU_SATURATION**2)) ** -0.5 if isinstance(p, Tensor) or p < 1 else 0.0
    return a * (x * keep + SELU_SATURATION * (1 - keep)) - a * SELU_SATURATION * p


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    rate: Rate | None = None,
    bits: Tensor | None = None,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Scaled dot-product attention (Vaswani et al. 2017) with dropout of the attention weights.

    Args:
        query: `[..., queries, width]`.
        key: `[..., keys, width]`.
        value: `[..., keys, value width]`.
        rate: The share of attention weights to drop; None drops nothing.
        bits: int16 `[..., queries, keys]`; not needed where nothing is dropped.
        attn_mask: bool (True attends) or float (added), broadcast to `[..., queries, keys]`.
        is_causal: No query attends to a later key.
        scale: Of the scores; 1 / sqrt(width) by default.
        enable_gqa: Key and value have fewer heads, each shared by several of the query's.
    """
    if enable_gqa:
        heads = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(heads, -3), value.repeat_interleave(heads, -3)
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        causal = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~causal, -math.inf)
    if attn_mask is not None:
        masked = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -math.inf) if masked else scores + attn_mask
    weights = torch.softmax(scores, dim=-1)
    if rate is not None and bits is not None:
        weights = (weights * rate.mask(bits, weights.dtype)).to(weights.dtype)
    return weights @ value


def _functional(form: str) -> Callable[..., DropCall]:
    def read(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> DropCall:
        return DropCall(form, input, p, training, inplace)

    return read


def _builtin(form: str, inplace: bool = False) -> Callable[..., DropCall]:
    def read(input: Tensor, p: float, train: bool) -> DropCall:
        return DropCall(form, input, p, train, inplace)

    return read


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> DropCall:
    inputs = {"query": query, "key": key, "value": value, "attn_mask": attn_mask, "is_causal": is_causal}
    return DropCall("attention", query, dropout_p, None, attention={**inputs, **options})


_READERS: dict[Any, Callable[..., DropCall]] = {
    F.dropout: _functional("element"),
    F.dropout1d: _functional("channel"),
    F.dropout2d: _functional("channel"),
    F.dropout3d: _functional("channel"),
    F.alpha_dropout: _functional("alpha"),
    F.feature_alpha_dropout: _functional("feature_alpha"),
    torch.dropout: _builtin("element"),
    torch.dropout_: _builtin("element", inplace=True),
    torch.feature_dropout: _builtin("channel"),
    torch.feature_dropout_: _builtin("channel", inplace=True),
    torch.alpha_dropout: _builtin("alpha"),
    torch.alpha_dropout_: _builtin("alpha", inplace=True),
    torch.feature_alpha_dropout: _builtin("feature_alpha"),
    torch.feature_alpha_dropout_: _builtin("feature_alpha", inplace=True),
    F.scaled_dot_product_attention: _attention,
}


def read_call(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> DropCall | None:
    """Read a call of `function`; None where it is not a function that drops."""
    reader = _READERS.get(function)
    return reader(*args, **kwargs) if reader else None


def is_dropout_function(function: Any) -> bool:
    """Return whether a function drops, or holds a call that does."""
    try:
        return function in _READERS or function is F.multi_head_attention_forward
    except TypeError:  # not hashable
        return False


_FUSED = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})


def without_fused_dropout(function: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments of a call with a rate of 0 between recurrent layers; those of any other call as they are."""
    if getattr(function, "__name__", "") not in _FUSED or len(args) < 9:
        return args
    place = 5 if isinstance(args[5], float) else 6  # one further back for sequences that are packed
    return (*args[:place], 0.0, *args[place + 1 :])


def at_rate(
    function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], rate: float
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call of a function that drops, with another rate in them."""
    place, name = (4, "dropout_p") if function is F.scaled_dot_product_attention else (1, "p")
    if len(args) > place:
        return (*args[:place], rate, *args[place + 1 :]), dict(kwargs)
    return args, {**kwargs, name: rate}


class Replaced(float):
    """A rate in the place of the one that a call was written with, which it remembers."""

    written: float

    def __new__(cls, rate: float, written: float) -> Replaced:
        """Make it; of a rate that was replaced before, the first is remembered."""
        self = super().__new__(cls, rate)
        self.written = getattr(written, "written", written)
        return self


class _Shown(float):
    """A rate that the attention function takes for one above 0, so that it shows its call even where it is 0."""

    def __gt__(self, other: object) -> bool:
        return True


def exposed_attention(mode_call: Callable[..., Tensor]) -> Callable[..., Any]:
    """Return `F.multi_head_attention_forward` with its inner dropout calls routed to `mode_call`.

    A function mode is off while it handles a call, so the dropout inside would pass it by. The function is
    pure Python: the same code with two of its global names bound to ours shows every call.

    Args:
        mode_call: Called as ``mode_call(function, *args, **kwargs)`` for each inner call that drops.
    """
    source = inspect.unwrap(F.multi_head_attention_forward)

    def dropout(input: Tensor, p: float) -> Tensor:
        return mode_call(F.dropout, input, p=float(p))

    def fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout_p: float, is_causal: bool) -> Tensor:
        return mode_call(F.scaled_dot_product_attention, q, k, v, mask, float(dropout_p), is_causal)

    names = {
        **source.__globals__,
        "has_torch_function": lambda _: False,
        "dropout": dropout,
        "scaled_dot_product_attention": fused,
    }
    exposed = FunctionType(source.__code__, names, source.__name__, source.__defaults__)
    exposed.__kwdefaults__ = source.__kwdefaults__

    @functools.wraps(source)
    def shown(*args: Any, **kwargs: Any) -> Any:
        if "dropout_p" in kwargs:
            return exposed(*args, **{**kwargs, "dropout_p": _Shown(kwargs["dropout_p"])})
        return exposed(*args[:_DROPOUT_P], _Shown(args[_DROPOUT_P]), *args[_DROPOUT_P + 1 :], **kwargs)

    return shown


_DROPOUT_P = list(inspect.signature(F.multi_head_attention_forward).parameters).index("dropout_p")
