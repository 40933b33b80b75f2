"""Dropout of attention weights: `F.scaled_dot_product_attention` and `nn.MultiheadAttention` (Vaswani et al. 2017)."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dropsearch.dropout.ops.call import CallOp, DropCall
from dropsearch.dropout.rates import Rate


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
    """Compute scaled dot-product attention (Vaswani et al. 2017) with dropout of the attention weights.

    Args:
        query: `[..., queries, width]`.
        key: `[..., keys, width]`.
        value: `[..., keys, value width]`.
        rate: Dropout rate of attention weights; None disables dropout.
        bits: int16 `[..., queries, keys]`; not needed without dropout.
        attn_mask: bool (True attends) or float (added), broadcast to `[..., queries, keys]`.
        is_causal: Queries do not attend to later keys.
        scale: Scale of the scores; 1 / sqrt(width) by default.
        enable_gqa: Key and value have fewer heads, each shared by several query heads.
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


def _read(
    op: CallOp,
    _: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> DropCall:
    given = {"query": query, "key": key, "value": value, "attn_mask": attn_mask, "is_causal": is_causal, **options}
    return DropCall(
        op,
        query,
        dropout_p,
        None,
        torch.Size((*query.shape[:-1], key.shape[-2])),
        lambda rate, bits: attend(**given, rate=rate, bits=bits),
        lambda: F.scaled_dot_product_attention(**given),
        lambda: attend(**given),
    )


OPS: Mapping[Any, CallOp] = {
    F.scaled_dot_product_attention: CallOp("attention dropout", _read, lambda _: (4, "dropout_p"), "attention")
}


class _Shown(float):
    """A rate that compares as above 0, so that the attention function makes its dropout call even at rate 0."""

    def __gt__(self, other: object) -> bool:
        return True


def exposed_attention(mode_call: Callable[..., Tensor]) -> Callable[..., Any]:
    """Return `F.multi_head_attention_forward` with its inner dropout calls routed to `mode_call`.

    A function mode is disabled while it handles a call, so it would miss the dropout inside. The function is pure
    Python; here its code runs with two global names rebound, so that every call is seen.
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
