"""Operations that drop by code of their own: classes and functions of other libraries, and what users register.

Such an operation runs as it was written, at the rate of the trial, and the random numbers that it draws are those of
its site: so its mask and what it does with it are its own. A family is one line: what its classes and functions are
called, and the kind of its sites.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from dropsearch._compat.lightning import PREFIXES
from dropsearch._compat.python_calls import as_written, can_be_shown

RATES = (
    "drop_prob", "drop_path_prob", "drop_path_rate", "drop_rate", "dropout_prob", "dropout_rate", "dropout_p",
    "zoneout_prob", "zoneout", "block_prob", "dropout", "prob", "rate", "p",
)  # fmt: skip
"""What the rate of such an operation is called: an attribute of the module or an argument of the function."""

LAYER_DROP = ("layerdrop", "layer_drop")
"""What the rate of a module is called that skips whole layers (Fan et al. 2020)."""


@dataclass(frozen=True)
class OwnCode:
    """An operation that drops by its own code."""

    name: str
    pattern: str
    """What its classes and functions are called, a regular expression."""
    kind: str = ""
    """The kind of its sites; empty where it depends on what stands around."""
    rates: tuple[str, ...] = RATES
    target: Any = None
    """The class or function itself, of what a user registered."""

    def fits(self, target: Any) -> bool:
        """Return whether a class or a function is of this family."""
        if self.target is not None:
            return target is self.target or (isinstance(target, type) and self.target in target.__mro__)
        return bool(re.search(self.pattern, target.__name__, flags=re.IGNORECASE))


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
"""The families by name, the first that fits counts: to add one, write its line."""

LAYERS = OwnCode("LayerDrop", "", "residual", LAYER_DROP)
"""The family of modules that skip their layers: known by the name of the rate, whatever the class is called."""

_registered: list[OwnCode] = []


def register(op: OwnCode) -> None:
    """Let a class or function of the user's own be an operation that drops; the latest registration counts."""
    _registered[:] = [op, *(each for each in _registered if each.target is not op.target)]


def registered_functions() -> list[FunctionType]:
    """Return the plain functions that users registered."""
    return [op.target for op in _registered if isinstance(op.target, FunctionType)]


def family_of(target: Any) -> OwnCode | None:
    """Return the family of a class or function by its name, or what a user registered it as; None where it has none."""
    known = next((op for op in _registered if op.fits(target)), None)
    if known or target.__module__.startswith(("torch.", "dropsearch.", *PREFIXES)):
        return known
    return next((op for op in FAMILIES if op.fits(target)), None)


def of_function(function: Any) -> tuple[OwnCode, str] | None:
    """Return which operation a plain function is, and what its argument for the rate is called; None for any other."""
    if not isinstance(function, FunctionType) or not can_be_shown(function):
        return None
    op = family_of(function)
    rate = rate_argument(function, op) if op else ""
    return (op, rate) if op and rate else None


def rate_argument(function: FunctionType, op: OwnCode) -> str:
    """Return what the argument of a function for the rate is called; empty where there is none."""
    code = as_written(function).__code__
    named = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return next((name for name in op.rates if name in named), "")
