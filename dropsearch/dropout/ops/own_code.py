"""Operations with their own dropout code: classes and functions of other libraries, and registered ones.

Such an operation runs unchanged at the trial's rate, and draws its random numbers from the generator of its site. A
family is one line: the pattern of its class and function names, and the kind of its sites.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from types import FunctionType
from typing import Any

from dropsearch._compat.lightning import PREFIXES
from dropsearch._compat.python_calls import as_written, can_be_shown

RATES = (
    "drop_prob", "drop_path_prob", "drop_path_rate", "drop_rate", "dropout_prob", "dropout_rate", "dropout_p",
    "zoneout_prob", "zoneout", "block_prob", "dropout", "prob", "rate", "p",
)  # fmt: skip
"""Names of the rate: an attribute of the module or an argument of the function."""

LAYER_DROP = ("layerdrop", "layer_drop")
"""Names of the rate of a module that skips whole layers (Fan et al. 2020)."""


@dataclass(frozen=True)
class OwnCode:
    """An operation with its own dropout code."""

    name: str
    pattern: str
    """Regular expression of the names of its classes and functions."""
    kind: str = ""
    """Kind of its sites; empty if it depends on the surrounding layers."""
    rates: tuple[str, ...] = RATES
    target: Any = None
    """The registered class or function."""

    def is_of(self, target: Any) -> bool:
        """Return whether a class or function is the registered one, or inherits from it."""
        return target is self.target or (isinstance(target, type) and self.target in target.__mro__)


FAMILIES: tuple[OwnCode, ...] = (
    OwnCode("stochastic depth", r"drop_?path|stochastic_?depth", "residual"),  # Huang et al. 2016
    OwnCode("DropBlock", r"drop_?block", "conv"),  # Ghiasi et al. 2018
    OwnCode("Gaussian dropout", r"gauss(ian)?_?drop"),  # Srivastava et al. 2014, section 10
    OwnCode("locked dropout", r"(locked|variational|rnn)_?drop", "rnn"),  # Gal and Ghahramani 2016
    OwnCode("embedding dropout", r"(embed\w*|word)_?drop", "embedding"),  # Merity et al. 2018
    OwnCode("DropConnect", r"drop_?connect|weight_?drop"),  # Wan et al. 2013
    OwnCode("zoneout", r"zone_?out", "rnn"),  # Krueger et al. 2017
    OwnCode("graph dropout", r"drop(out)?_?(edge|node|adj|path)", "input"),  # Rong et al. 2020
    OwnCode("other dropout", r"drop"),
)
"""Families; the first match counts. To add one, add a line."""

LAYERS = OwnCode("LayerDrop", "", "residual", LAYER_DROP)
"""The family of modules that skip their layers, recognized by the name of the rate instead of the class."""

_registered: list[OwnCode] = []


def register(op: OwnCode) -> None:
    """Register a user's class or function as a dropout operation; the latest registration counts."""
    _registered[:] = [op, *(each for each in _registered if each.target is not op.target)]


def registered_functions() -> list[FunctionType]:
    """Return the plain functions that users registered."""
    return [op.target for op in _registered if isinstance(op.target, FunctionType)]


def family_of(target: Any) -> OwnCode | None:
    """Return the registration or the family of a class or function, or None."""
    known = next((op for op in _registered if op.is_of(target)), None)
    if known or target.__module__.startswith(("torch.", "dropsearch.", *PREFIXES)):
        return known
    return _family(target.__name__)


@cache
def _family(name: str) -> OwnCode | None:
    return next((op for op in FAMILIES if re.search(op.pattern, name, flags=re.IGNORECASE)), None)


def of_function(function: Any) -> tuple[OwnCode, str] | None:
    """Return the operation of a plain function and the name of its rate argument, or None."""
    if not isinstance(function, FunctionType) or not can_be_shown(function):
        return None
    op = family_of(function)
    rate = rate_argument(function, op) if op else ""
    return (op, rate) if op and rate else None


def rate_argument(function: FunctionType, op: OwnCode) -> str:
    """Return the name of a function's rate argument; empty if there is none."""
    code = as_written(function).__code__
    named = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return next((name for name in op.rates if name in named), "")
