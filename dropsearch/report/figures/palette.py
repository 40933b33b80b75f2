"""One colour, marker and line for each arm, the same in every figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Line = Literal["-", "--", ":", "-."]


@dataclass(frozen=True)
class ArmStyle:
    """How an arm is drawn; marker and line tell arms apart without any colour."""

    colour: str
    marker: str
    line: Line


# Colours by Okabe and Ito (2008), which people with any common colour blindness can tell apart.
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
"""For what is said beside the data: captions, ticks, zero lines."""
GRID = "#E4E4E4"


def arm_style(arm: str) -> ArmStyle:
    """How the arm of this name is drawn."""
    return ARM_STYLES.get(arm, OTHER)
