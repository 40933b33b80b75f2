"""Dropout operations, one family per file.

A family of PyTorch functions defines `OPS`: by function, how a call is parsed (its rate, the shape of its mask, how a
mask is applied) and the kind of its sites.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F

from dropsearch.dropout.ops import attention, element, own_code, recurrent
from dropsearch.dropout.ops.call import CallOp, DropCall

OPS: Mapping[Any, CallOp] = {**element.OPS, **attention.OPS, **recurrent.OPS}
"""All dropout functions of PyTorch. To add a family, write its file and list it here."""


def op_of(function: Any) -> CallOp | None:
    """Return the dropout operation of a function, or None."""
    try:
        return OPS.get(function)
    except TypeError:  # not hashable
        return None


def read_call(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> DropCall | None:
    """Parse a call of a function; return None if it does not drop."""
    op = op_of(function)
    return op.read(op, function, *args, **kwargs) if op else None


def is_dropout_function(function: Any) -> bool:
    """Return whether a function drops or contains a call that drops."""
    if op_of(function) is not None or function is F.multi_head_attention_forward:
        return True
    return own_code.of_function(function) is not None
