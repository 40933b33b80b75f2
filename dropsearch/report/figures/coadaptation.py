"""The picture of co-adaptation: how alike hidden units are, and how much the network leans on each of them."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from dropsearch.core.records import Summary
from dropsearch.report import measured_values
from dropsearch.report.figures import axes
from dropsearch.report.figures.layout import FigureLayout, figure_layout, key
from dropsearch.report.figures.strips import ROW, margin, strip

CAPTION = (
    "Left: mean absolute correlation between hidden units on held-out inputs, a dot a seed, the line its interval. "
    "Right: accuracy when a share of the hidden units is replaced by their mean."
)


def coadaptation(summary: Summary) -> FigureLayout | None:
    """Correlation by arm beside the knock-out curves; None where either was not measured."""
    alike, knocked = measured_values.values(summary, "correlation"), measured_values.bands(summary, "knockout")
    if not alike or not knocked:
        return None
    arms = [arm for arm in summary.arms if arm in alike or arm in knocked]
    drawn = figure_layout(
        "Co-adaptation of hidden units in each arm's winner",
        f"{CAPTION} {axes.explained(measured_values.seeds(summary))}",
        2,
        [key(arm) for arm in arms],
        alt=f"{_said(summary)} Accuracy in % as units are knocked out: {axes.ends(knocked, '{:.1f}', 100)}.",
        columns=2,
        panel_height=max(2.3, 0.2 + ROW * len(arms)),
        left=margin(arms),
        gap=0.75,
    )
    _correlations(drawn.panels[0], arms, alike)
    panel = drawn.panels[1]
    for arm, (x, band) in knocked.items():
        axes.line(panel, arm, x, band, 100)
    panel.set_xlabel("share of hidden units replaced by their mean")
    panel.set_ylabel("accuracy (%)")
    return drawn


def _correlations(panel: Axes, arms: Sequence[str], alike: dict[str, tuple[float, ...]]) -> None:
    strip(panel, arms, alike)
    panel.set_xlabel("mean |correlation| between hidden units")


def _said(summary: Summary) -> str:
    found = measured_values.means(summary, "correlation")
    listed = ", ".join(f"{arm} {interval.mean:.3f}" for arm, interval in found.items())
    return f"Mean absolute correlation between hidden units: {listed}."
