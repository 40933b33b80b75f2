"""The picture of overfitting: how far validation loss lies above train loss, by arm."""

from __future__ import annotations

from dropsearch.core.records import Summary
from dropsearch.report import measured_values
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
