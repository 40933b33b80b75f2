"""What is random in a model and out of the control's reach, in the words for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import nn

from dropsearch._compat.torch_modules import has_compiled_call

DRAWS = frozenset(
    {
        "bernoulli",
        "bernoulli_",
        "rand",
        "rand_like",
        "randn",
        "randn_like",
        "normal",
        "normal_",
        "uniform_",
        "exponential_",
        "log_normal_",
        "cauchy_",
        "geometric_",
        "poisson",
        "rrelu",
        "rrelu_",
        "gumbel_softmax",
        "native_dropout",
    }
)
"""Names of PyTorch's functions that draw random numbers of their own, as a function mode sees them."""

_OWN_KINDS: tuple[tuple[str, str], ...] = (
    (r"drop_?path|stochastic_?depth", "drops whole branches: set its own {attribute}"),
    (r"zone_?out", "keeps old states of units instead of dropping them: set its own {attribute}"),
    (r"drop_?block", "drops whole regions: set its own {attribute}"),
    (r"layer_?drop", "skips whole layers: set its own {attribute}"),
)
"""Modules known by the name of their type, from whatever library."""

_RATE_ATTRIBUTES = ("drop_prob", "drop_rate", "dropout", "p", "prob", "rate", "zoneout", "block_prob")


def custom_kind(module: nn.Module) -> str:
    """Return why a module of a known stochastic type is out of reach; empty for any other module."""
    name = type(module).__name__
    for pattern, words in _OWN_KINDS:
        if re.search(pattern, name, flags=re.IGNORECASE):
            attribute = _rate_attribute(module) or "rate"
            return f"{name} {words.format(attribute=attribute)}, or put nn.Dropout in its place"
    return ""


def custom_rate(module: nn.Module) -> float:
    """Return the rate that a stochastic module holds itself, nan where it cannot be read."""
    attribute = _rate_attribute(module)
    return float(getattr(module, attribute)) if attribute else float("nan")


def _rate_attribute(module: nn.Module) -> str:
    held = vars(module)
    return next((name for name in _RATE_ATTRIBUTES if isinstance(held.get(name), int | float)), "")


def draws(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Return the name of the function if this call of it draws random numbers, else an empty string."""
    name = getattr(function, "__name__", "")
    if name not in DRAWS:
        return ""
    if function in (F.rrelu, F.rrelu_):
        return name if (args[3] if len(args) > 3 else kwargs.get("training", False)) else ""
    return name


def draw_reason(name: str) -> str:
    """Return why a forward's own random numbers are out of reach, and what to do."""
    if name.startswith("rrelu"):
        return "F.rrelu draws the slopes of a random ReLU itself, which no dropout rate sets; use another activation"
    return f"the forward draws random numbers itself ({name}); where that drops activations, use F.dropout instead"


def is_compiled(module: nn.Module) -> bool:
    """Whether a module, or a part of it, was given to ``torch.compile``: no call can be seen in code so made."""
    named = any(name.rpartition(".")[2] == "_orig_mod" for name, _ in module.named_modules())
    return named or any(has_compiled_call(part) for part in module.modules())


ONE_LAYER = "it does nothing: it would drop between layers, and there is one; put nn.Dropout behind it"
SCRIPTED = "its code is compiled by TorchScript, where no call can be seen; give the module before it is scripted"
UNMET = "this pass did not call it: it stands behind an `if`, or nothing uses it; give a batch that leads there"
STAYS_IN_EVAL = (
    "it drops nothing in training: its module stays in eval mode (frozen), or the call says training=False; "
    "call .train() on that module, or leave the site out"
)
