"""The typical dropout rate of each kind of site, as data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dropsearch.core.records import Site

KINDS = ("input", "hidden", "conv", "rnn", "attention", "embedding", "residual")

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


def typical_rate(kind: str) -> float:
    """Return the middle of the recommended range for a kind of site."""
    low, high = TYPICAL_BANDS[kind]
    return round((low + high) / 2, 4)


def typical_rates(sites: Iterable[Site]) -> dict[str, float]:
    """Return the typical rate of each site, by site name."""
    return {site.name: typical_rate(site.kind) for site in sites}
