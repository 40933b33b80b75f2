"""One colour, marker and line for each arm, the same in every figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Line = Literal["-", "--", ":", "-."]


@dataclass(frozen=True)
class Look:
    """How an arm is drawn; marker and line tell arms apart without any colour."""

    colour: str
    marker: str
    line: Line


# Colours by Okabe and Ito (2008), which people with any common colour blindness can tell apart.
LOOKS = {
    "none": Look("#000000", "o", "-"),
    "dropout": Look("#0072B2", "s", "-"),
    "batchnorm": Look("#E69F00", "^", "-"),
    "both": Look("#009E73", "D", "-"),
    "dropout_shared": Look("#56B4E9", "v", "--"),
    "textbook": Look("#CC79A7", "P", "--"),
}
OTHER = Look("#D55E00", "X", ":")
QUIET = "#6B6B6B"
"""For what is said beside the data: captions, ticks, zero lines."""
GRID = "#E4E4E4"


def look(arm: str) -> Look:
    """How the arm of this name is drawn."""
    return LOOKS.get(arm, OTHER)
