"""The picture of overfitting: how far validation loss lies above train loss, by arm."""

from __future__ import annotations

import math

from dropsearch.core.records import Series, Summary
from dropsearch.report import measured_values
from dropsearch.report.bands import Band, series_band
from dropsearch.report.figures import axes
from dropsearch.report.figures.layout import FigureLayout, figure_layout
from dropsearch.report.figures.strips import BAND, ROW, keys, margin, strip

MEASURES = ("gap_best", "gap_last")


def gaps(summary: Summary) -> FigureLayout | None:
    """A panel for the gap at the best epoch and one at the last; None where neither was measured."""
    found = {name: values for name in MEASURES if (values := measured_values.values(summary, name))}
    if summary.evidence is None or not found:
        return None
    arms = [arm for arm in summary.arms if any(arm in values for values in found.values())]
    quantities = {name: measured_values.quantity(summary.evidence, name) for name in found}
    drawn = figure_layout(
        "Overfitting gap of each arm's winner",
        f"Validation loss minus train loss, both with dropout off: zero is no overfitting. Lines: {BAND}.",
        len(found),
        keys(),
        alt=". ".join(f"{quantities[name].label}: {_said(summary, name)}" for name in found),
        columns=len(found),
        panel_height=0.2 + ROW * len(arms),
        left=margin(arms),
        titled=True,
    )
    for (name, values), panel in zip(found.items(), drawn.panels, strict=True):
        panel.axvline(0, color="black", linewidth=1.1, zorder=2)
        strip(panel, arms, values)
        panel.set_title(quantities[name].label, fontweight="bold")
        panel.set_xlabel("validation minus train loss (nats)")
    return drawn


def _said(summary: Summary, name: str) -> str:
    return ", ".join(
        f"{arm} {interval.mean:+.3f} nats" for arm, interval in measured_values.means(summary, name).items()
    )


def train_sizes(summary: Summary) -> FigureLayout | None:
    """One line an arm: the gap at the best epoch by the number of training examples; None where none was trained."""
    bands = _bands(summary)
    if not bands:
        return None
    seeds = min(len(values) for values in summary.evidence.train_sizes[0].gaps.values()) if summary.evidence else 0
    drawn = figure_layout(
        "Overfitting gap by size of the training set",
        "Each arm's winner retrained on parts of the training set, in as many steps: validation loss minus train loss "
        f"at the best epoch, both with dropout off. {axes.explained(seeds)}",
        1,
        axes.legend(bands),
        alt=f"Gap in nats, from the smallest to the largest training set: {axes.ends(bands, '{:+.3f}')}.",
        panel_height=2.8,
    )
    panel = drawn.panels[0]
    panel.axhline(0, color="black", linewidth=1.1, zorder=2)
    for arm, (x, band) in bands.items():
        axes.line(panel, arm, x, band)
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
