"""The picture of robustness: accuracy against the severity of each corruption of the inputs."""

from __future__ import annotations

from dropsearch.core.records import Summary
from dropsearch.report import measured_values
from dropsearch.report.figures import axes
from dropsearch.report.figures.axes import label_outer, whole_numbers
from dropsearch.report.figures.layout import FigureLayout, figure_layout

CORRUPTIONS = {
    "noise": "Gaussian noise",
    "salt_and_pepper": "salt and pepper",
    "blur": "blur",
    "contrast": "contrast",
    "translation": "translation",
}
"""The series of a corruption, and what it is called."""


def robustness(summary: Summary) -> FigureLayout | None:
    """One panel a corruption, one line an arm; None where no corruption was tried."""
    found = {name: bands for name in CORRUPTIONS if (bands := measured_values.bands(summary, name))}
    if not found:
        return None
    arms = [arm for arm in summary.arms if any(arm in bands for bands in found.values())]
    columns = 2 if len(found) in (2, 4) else min(3, len(found))
    drawn = figure_layout(
        "Accuracy on corrupted inputs",
        "Severity 0 is the clean input. The same corrupted examples for every model. "
        + axes.explained(measured_values.seeds(summary)),
        len(found),
        axes.legend(arms),
        alt="Accuracy in % from the least to the greatest severity. "
        + " ".join(f"{CORRUPTIONS[name]}: {axes.ends(bands, '{:.1f}', 100)}." for name, bands in found.items()),
        columns=columns,
        panel_height=2.4 if len(found) < 3 else 1.7,
        titled=True,
    )
    for (name, bands), panel in zip(found.items(), drawn.panels, strict=True):
        panel.set_title(CORRUPTIONS[name], fontweight="bold")
        for arm, (x, band) in bands.items():
            axes.line(panel, arm, x, band, 100)
        whole_numbers(panel)
    label_outer(drawn, "severity", "accuracy (%)")
    return drawn
