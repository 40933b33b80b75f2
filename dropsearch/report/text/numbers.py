"""How numbers and names are written, the same on the terminal and on the page."""

from __future__ import annotations

import math
from typing import Any

from dropsearch.core.records.ranges import written

EMPTY = "-"


def shorten(text: str, size: int) -> str:
    """`text`, with its middle left out where it is longer than `size`: the end of a path tells most."""
    if len(text) <= size:
        return text
    head = (size - 2) // 3
    return text[:head] + ".." + text[len(text) - (size - 2 - head) :]


def loss(value: float) -> str:
    """A loss in nats, or its lack."""
    return f"{value:.4f}" if math.isfinite(value) else EMPTY if math.isnan(value) else "diverged"


def percent(value: float) -> str:
    """An accuracy in [0, 1] as per cent, without the sign."""
    return f"{100 * value:.2f}" if math.isfinite(value) else EMPTY


def points(value: float) -> str:
    """A difference of accuracies in percentage points, signed, and 0.00 without one."""
    if not math.isfinite(value):
        return EMPTY
    text = f"{100 * value:+.2f}"
    return text[1:] if float(text) == 0 else text


def rate(value: float) -> str:
    """A dropout rate."""
    return f"{value:.2f}" if math.isfinite(value) else EMPTY


def setting(value: Any) -> str:
    """A value of any kind, as it is typed; a number with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else EMPTY if value == EMPTY else written(value)


def probability(value: float) -> str:
    """A p-value; small ones are not rounded to zero."""
    if not math.isfinite(value):
        return EMPTY
    return f"{value:.4f}" if value >= 0.0001 else "<0.0001"
