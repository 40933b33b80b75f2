"""The picture of overfitting by the size of the training set."""

from __future__ import annotations

import math

from dropsearch.records import Series, Summary
from dropsearch.report import lines
from dropsearch.report.bands import Band, series_band
from dropsearch.report.sheet import Sheet, sheet


def train_sizes(summary: Summary) -> Sheet | None:
    """One line an arm: the gap at the best epoch by the number of training examples; None where none was trained."""
    bands = _bands(summary)
    if not bands:
        return None
    seeds = min(len(values) for values in summary.evidence.train_sizes[0].gaps.values()) if summary.evidence else 0
    drawn = sheet(
        "Overfitting gap by size of the training set",
        "Each arm's winner retrained on parts of the training set, in as many steps: validation loss minus train loss "
        f"at the best epoch, both with dropout off. {lines.explained(seeds)}",
        1,
        lines.legend(bands),
        alt=f"Gap in nats, from the smallest to the largest training set: {lines.ends(bands, '{:+.3f}')}.",
        panel_height=2.8,
    )
    panel = drawn.panels[0]
    panel.axhline(0, color="black", linewidth=1.1, zorder=2)
    for arm, (x, band) in bands.items():
        lines.line(panel, arm, x, band)
    panel.set_xscale("log")
    sizes = next(iter(bands.values()))[0]
    panel.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
    panel.minorticks_off()
    panel.set_xlabel("training examples")
    panel.set_ylabel("validation minus train loss (nats)")
    return drawn


def _bands(summary: Summary) -> dict[str, tuple[tuple[float, ...], Band]]:
    """The gaps of the arms that have any, in the order in which arms ran."""
    sizes = summary.evidence.train_sizes if summary.evidence else ()
    x = tuple(float(size.size) for size in sizes)
    found = {}
    for arm in summary.arms:
        curves = tuple(zip(*(size.gaps[arm] for size in sizes if arm in size.gaps), strict=True))
        if any(math.isfinite(value) for curve in curves for value in curve):
            found[arm] = x, series_band(Series(x, curves))
    return found
