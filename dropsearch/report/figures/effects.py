"""Figures of dropout's effects in the winners: overfitting, co-adaptation, robustness, variance shift."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from dropsearch.core.records import Summary
from dropsearch.report import measured_values
from dropsearch.report.figures import axes
from dropsearch.report.figures.axes import BAND, ROW, keys, label_outer, margin, strip, whole_numbers
from dropsearch.report.figures.layout import FigureLayout, figure_layout, key
from dropsearch.report.numbers import with_unit

MEASURES = ("gap_best", "gap_last")


def gaps(summary: Summary) -> FigureLayout | None:
    """Draw the gap at the best epoch and at the last; return None if neither was measured."""
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
        alt=". ".join(f"{quantities[name].label}: {_alt(summary, name)}" for name in found),
        columns=len(found),
        panel_height=0.2 + ROW * len(arms),
        left=margin(arms),
        titled=True,
    )
    for (name, values), panel in zip(found.items(), drawn.panels, strict=True):
        panel.axvline(0, color="black", linewidth=1.1, zorder=2)
        strip(panel, arms, values)
        panel.set_title(quantities[name].label, fontweight="bold")
        panel.set_xlabel(with_unit("validation minus train loss", summary.comparison_metric.loss_unit))
    return drawn


def _alt(summary: Summary, name: str) -> str:
    unit = f" {summary.comparison_metric.loss_unit}".rstrip()
    return ", ".join(
        f"{arm} {interval.mean:+.3f}{unit}" for arm, interval in measured_values.means(summary, name).items()
    )


CAPTION = (
    "Left: mean absolute correlation between hidden units on held-out inputs, a dot a seed, the line its interval. "
    "Right: accuracy when a share of the hidden units is replaced by their mean."
)


def coadaptation(summary: Summary) -> FigureLayout | None:
    """Draw correlations by arm next to knockout curves; return None if either was not measured."""
    alike, knocked = measured_values.values(summary, "correlation"), measured_values.bands(summary, "knockout")
    if not alike or not knocked:
        return None
    arms = [arm for arm in summary.arms if arm in alike or arm in knocked]
    drawn = figure_layout(
        "Co-adaptation of hidden units in each arm's winner",
        f"{CAPTION} {axes.explained(measured_values.seeds(summary))}",
        2,
        [key(arm) for arm in arms],
        alt=f"{_correlation_alt(summary)} Accuracy in % with units knocked out: {axes.ends(knocked, '{:.1f}', 100)}.",
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


def _correlation_alt(summary: Summary) -> str:
    found = measured_values.means(summary, "correlation")
    listed = ", ".join(f"{arm} {interval.mean:.3f}" for arm, interval in found.items())
    return f"Mean absolute correlation between hidden units: {listed}."


CORRUPTIONS = {
    "noise": "Gaussian noise",
    "salt_and_pepper": "salt and pepper",
    "blur": "blur",
    "contrast": "contrast",
    "translation": "translation",
}
"""Title of each corruption's series."""


def robustness(summary: Summary) -> FigureLayout | None:
    """Draw one panel per corruption and one line per arm; return None without corruptions."""
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


def shift(summary: Summary) -> FigureLayout | None:
    """Draw the variance ratio by BatchNorm layer, one line per arm; return None if no arm has both."""
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
