"""Dropout sites of a model, the kinds of sites with their typical rates, and the arms of the ablation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

RATES_BY_SITE = "rates by site"
"""Marker in ``Annotated`` for the constructor argument that takes dropout rates by site name."""

TYPICAL_BANDS: Mapping[str, tuple[float, float]] = {
    "input": (0.1, 0.2),
    "hidden": (0.3, 0.5),
    "conv": (0.1, 0.3),
    "rnn": (0.2, 0.3),
    # Vaswani et al. 2017 use 0.1 on attention, embeddings and residual branches, and 0.3 for small data.
    "attention": (0.1, 0.1),
    "embedding": (0.1, 0.1),
    "residual": (0.1, 0.1),
}
"""Range of commonly recommended rates (probability of dropping) by kind of site."""

KINDS = tuple(TYPICAL_BANDS)


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


def typical_rate(kind: str) -> float:
    """Return the middle of the recommended range for a kind of site."""
    low, high = TYPICAL_BANDS[kind]
    return round((low + high) / 2, 4)


def typical_rates(sites: Iterable[Site]) -> dict[str, float]:
    """Return the typical rate of each site, by site name."""
    return {site.name: typical_rate(site.kind) for site in sites}


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
