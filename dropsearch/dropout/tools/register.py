"""Registration of a user's dropout operation."""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import Any

from torch import nn

from dropsearch._compat.python_calls import can_be_shown
from dropsearch.core.errors import InputError, close_match
from dropsearch.core.records.arms import KINDS
from dropsearch.dropout.ops.own_code import OwnCode, rate_argument, register
from dropsearch.dropout.places import forget_classes, names_in


def register_op(operation: Any, *, rate: str, kind: str = "") -> Any:
    """Register a class or function with its own dropout code, so that its rate is searched.

    Its code runs unchanged at the trials' rates, and its random numbers (``torch.rand``, ``bernoulli_``, ``randn``
    etc.) come from the trial's seed. Call it after the definition; the command line then knows the operation as soon as
    it imports the file. ::

        def shake(x, p, training):  # stochastic depth of a batch
            keep = torch.rand(len(x), 1) >= p
            return x * keep / (1 - p) if training else x

        dropsearch.register_op(shake, rate="p", kind="residual")

    Args:
        operation: A subclass of ``nn.Module`` or a plain function.
        rate: Name of the attribute of the class, or of the argument of the function, that is the dropout rate.
        kind: Kind of its sites, which determines the typical rate; inferred by default.

    Returns:
        The operation, so that ``functools.partial`` makes a decorator.

    Raises:
        InputError: The operation is neither, it has no such attribute or argument, or the kind is unknown.
    """
    if kind and kind not in KINDS:
        raise InputError(f'kind must be one of {", ".join(KINDS)}, got "{kind}"{close_match(kind, KINDS)}')
    op = OwnCode(getattr(operation, "__name__", ""), "", kind, (rate,), operation)
    if isinstance(operation, type) and issubclass(operation, nn.Module):
        names = names_in(operation)
        if rate not in names:
            raise InputError(
                f'rate must name an attribute that {op.name} reads, got "{rate}"{close_match(rate, names)}'
            )
    elif not isinstance(operation, FunctionType) or not can_be_shown(operation):
        raise InputError(
            f"register_op needs a subclass of nn.Module or a plain function without variables of an enclosing "
            f"function, got {operation!r}"
        )
    elif not rate_argument(operation, op):
        names = list(inspect.signature(operation).parameters)
        raise InputError(f'rate must name an argument of {op.name}, got "{rate}"{close_match(rate, names)}')
    register(op)
    forget_classes()
    return operation
