"""How large a difference is, on a scale that has no unit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def superiority(a: Sequence[float], b: Sequence[float]) -> float:
    """Probability that a random value of `a` [n] exceeds a random value of `b` [m], ties counted half.

    Vargha and Delaney's A (2000): the share of all n times m couples in which the one of `a` is the greater. It asks
    what happens to somebody who trains each arm once, on seeds that have nothing to do with each other; that the seeds
    of two arms pair up is of use to the interval and the test, and not to him. 0.5 is no difference, 1 that every seed
    of `a` lies above every seed of `b`. NaN where either is empty.
    """
    if not a or not b:
        return math.nan
    ordered = np.sort(b)
    below, not_above = (np.searchsorted(ordered, a, side) for side in ("left", "right"))
    return float((below + not_above).mean() / (2 * len(b)))
