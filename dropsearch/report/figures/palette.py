"""Color, marker and line style of each arm, the same in every figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Line = Literal["-", "--", ":", "-."]


@dataclass(frozen=True)
class ArmStyle:
    """The style of an arm; marker and line distinguish arms without color."""

    colour: str
    marker: str
    line: Line


# Colors by Okabe and Ito (2008), which are distinguishable with common color vision deficiencies.
ARM_STYLES = {
    "none": ArmStyle("#000000", "o", "-"),
    "dropout": ArmStyle("#0072B2", "s", "-"),
    "batchnorm": ArmStyle("#E69F00", "^", "-"),
    "both": ArmStyle("#009E73", "D", "-"),
    "dropout_shared": ArmStyle("#56B4E9", "v", "--"),
    "typical": ArmStyle("#CC79A7", "P", "--"),
}
OTHER = ArmStyle("#D55E00", "X", ":")
QUIET = "#6B6B6B"
"""Color of captions, ticks and zero lines."""
GRID = "#E4E4E4"


def arm_style(arm: str) -> ArmStyle:
    """Return the style of an arm."""
    return ARM_STYLES.get(arm, OTHER)
