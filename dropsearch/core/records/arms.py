"""Dropout sites of a model, and the arms of the ablation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Site:
    """One place where a model drops activations."""

    name: str
    """The module's path, with ``#2``, ``#3`` … if a module drops more than once per forward pass."""
    kind: str
    """input, hidden, conv, rnn, attention, embedding or residual."""
    rate: float
    """The module's own probability of dropping an activation; nan if unknown."""
    activations: int
    """Number of activations per example at the site."""
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


ARMS: Mapping[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("none", "off", batchnorm=False, title="neither"),
        Arm("dropout", "search", batchnorm=False, title="dropout"),
        Arm("batchnorm", "off", batchnorm=True, title="BatchNorm"),
        Arm("both", "search", batchnorm=True, title="dropout and BatchNorm"),
        Arm("dropout_shared", "shared", batchnorm=False, title="dropout, one rate for all sites"),
        Arm("typical", "typical", batchnorm=False, title="dropout at the typical rates"),
    )
}
