"""Dropout sites of a model, and the arms of the ablation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

RATES_BY_SITE = "rates by site"
"""Marker in ``Annotated`` for the constructor argument that takes dropout rates by site name."""


@dataclass(frozen=True)
class Site:
    """One place where a model drops activations."""

    name: str
    """The module's path, with ``#2`` for a second dropout in its code and ``@2`` for its second call."""
    kind: str
    """input, hidden, conv, rnn, attention, embedding or residual."""
    rate: float
    """The module's own probability of dropping an activation; nan if unknown."""
    activations: int
    """Number of activations per example at the site, over all its calls."""
    controllable: bool = True
    reason: str = ""
    """Why the site's rate cannot be set; empty if it can."""


@dataclass(frozen=True)
class Arm:
    """One setting of the ablation."""

    name: str
    dropout: Literal["off", "search", "shared", "typical"]
    batchnorm: bool
    title: str
    """Name of the arm in sentences."""


ARMS: Mapping[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("none", "off", batchnorm=False, title="plain"),
        Arm("dropout", "search", batchnorm=False, title="dropout"),
        Arm("batchnorm", "off", batchnorm=True, title="BatchNorm"),
        Arm("both", "search", batchnorm=True, title="dropout + BatchNorm"),
        Arm("dropout_shared", "shared", batchnorm=False, title="dropout with one rate"),
        Arm("typical", "typical", batchnorm=False, title="dropout at typical rates"),
    )
}


def arm_title(name: str) -> str:
    """Return the name of an arm in sentences."""
    return ARMS[name].title if name in ARMS else name
