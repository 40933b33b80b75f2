"""The picture of variance shift: what dropout before BatchNorm does to the variance that BatchNorm expects."""

from __future__ import annotations

from dropsearch.core.records import Summary
from dropsearch.report import measured_values
from dropsearch.report.figures import axes
from dropsearch.report.figures.axes import label_outer, whole_numbers
from dropsearch.report.figures.layout import FigureLayout, figure_layout


def shift(summary: Summary) -> FigureLayout | None:
    """Variance ratio by BatchNorm layer, one line an arm; None where no arm has both."""
    found = measured_values.bands(summary, "shift")
    if not found:
        return None
    drawn = figure_layout(
        "Variance shift at each BatchNorm layer",
        "Variance of the layer's inputs in evaluation over that in training: 1 is no shift. Li et al. (2019). "
        + axes.explained(measured_values.seeds(summary)),
        1,
        axes.legend(found),
        alt=f"Variance ratio from the first to the last BatchNorm layer: {axes.ends(found)}.",
        panel_height=2.4,
    )
    panel = drawn.panels[0]
    panel.axhline(1, color="black", linewidth=1.1)
    for arm, (x, band) in found.items():
        axes.line(panel, arm, x, band)
    whole_numbers(panel)
    label_outer(drawn, "BatchNorm layer, from input to output", "variance, evaluation / training")
    return drawn
