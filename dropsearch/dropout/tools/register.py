"""Operations of the user's own that drop, made known in one line."""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import Any

from torch import nn

from dropsearch._compat.python_calls import can_be_shown
from dropsearch.core.errors import InputError, close_match
from dropsearch.dropout.ops.own_code import OwnCode, rate_argument, register
from dropsearch.dropout.places import forget_classes, names_in
from dropsearch.dropout.typical_rates import KINDS


def register_op(operation: Any, *, rate: str, kind: str = "") -> Any:
    """Make a class or a function that drops by code of its own an operation whose rate is searched.

    Its code runs as it is, at the rates of the trials, and its random numbers (``torch.rand``, ``bernoulli_``,
    ``randn`` and their like) come from the trial's seed. One line behind the definition does it; so the command line
    knows the operation as soon as it imports the module's file. ::

        def shake(x, p, training):  # stochastic depth of a batch
            keep = torch.rand(len(x), 1) >= p
            return x * keep / (1 - p) if training else x

        dropsearch.register_op(shake, rate="p", kind="residual")

    Args:
        operation: A subclass of ``nn.Module`` or a plain function.
        rate: The attribute of the class, or the argument of the function, that is the probability to drop.
        kind: The kind of its sites, by which the typical rate goes; guessed from what stands around where left out.

    Returns:
        The operation, so that a decorator can be made of it with ``functools.partial``.

    Raises:
        InputError: It is neither, it has no such attribute or argument, or the kind is unknown.
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
            f"register_op needs a subclass of nn.Module or a plain function that keeps nothing of a function around "
            f"it, got {operation!r}"
        )
    elif not rate_argument(operation, op):
        names = list(inspect.signature(operation).parameters)
        raise InputError(f'rate must name an argument of {op.name}, got "{rate}"{close_match(rate, names)}')
    register(op)
    forget_classes()
    return operation
