"""Figures of dropout's effects in the winners: overfitting, co-adaptation, robustness, variance shift, ensembles."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from dropsearch.core.records import Summary
from dropsearch.report import measured_values
from dropsearch.report.figures import axes
from dropsearch.report.figures.axes import BAND, ROW, keys, label_outer, margin, strip, whole_numbers
from dropsearch.report.figures.layout import FigureLayout, figure_layout, key
from dropsearch.report.figures.palette import QUIET, Line
from dropsearch.report.numbers import with_unit

MEASURES = ("gap_best", "gap_last")


def gaps(summary: Summary) -> FigureLayout | None:
    """Draw the gap at the best epoch and at the last; return None if neither was measured."""
    found = {name: values for name in MEASURES if (values := measured_values.values(summary, name))}
    if summary.evidence is None or not found:
        return None
    arms = [arm for arm in summary.arms if any(arm in values for values in found.values())]
    quantities = {name: summary.evidence.quantity(name) for name in found}
    drawn = figure_layout(
        "Overfitting gap of each arm's winner",
        f"Validation loss minus train loss, both with dropout off: zero is no overfitting. Lines: {BAND}.",
        len(found),
        keys(),
        columns=len(found),
        panel_height=0.2 + ROW * len(arms),
        left=margin(arms),
        titled=True,
    )
    for (name, values), panel in zip(found.items(), drawn.panels, strict=True):
        panel.axvline(0, color="black", linewidth=1.1, zorder=2)
        strip(panel, arms, values)
        panel.set_title(quantities[name].label, fontweight="bold")
        panel.xaxis.set_major_locator(MaxNLocator(nbins=5))
        panel.set_xlabel(with_unit("validation minus train loss", summary.comparison_metric.loss_unit))
    return drawn


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
        columns=2,
        panel_height=max(2.3, 0.2 + ROW * len(arms)),
        left=margin(arms),
        gap=0.75,
    )
    strip(drawn.panels[0], arms, alike)
    drawn.panels[0].set_xlabel("mean |correlation| between hidden units")
    panel = drawn.panels[1]
    for arm, (x, band) in knocked.items():
        axes.line(panel, arm, x, band, 100)
    panel.set_xlabel("share of hidden units replaced by their mean")
    panel.set_ylabel("accuracy (%)")
    return drawn


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
        [key(arm) for arm in arms],
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
        [key(arm) for arm in found],
        panel_height=2.4,
    )
    panel = drawn.panels[0]
    panel.axhline(1, color="black", linewidth=1.1)
    for arm, (x, band) in found.items():
        axes.line(panel, arm, x, band)
    whole_numbers(panel)
    label_outer(drawn, "BatchNorm layer, from input to output", "variance, evaluation / training")
    return drawn


YARDSTICKS: Mapping[str, Line] = {
    "dropout off": "--",
    "dropout off, temperature-scaled": ":",
    "ensemble of the retrainings": "-.",
}
AVERAGING = (
    "Loss of the averaged probabilities on held-out inputs. Dropout acts as an ensemble where the line falls below "
    "that of the same net with dropout off and its confidence scaled by one temperature."
)


def ensemble(summary: Summary) -> FigureLayout | None:
    """Draw one panel per arm with dropout: loss by number of masks, with references; return None without any."""
    found = measured_values.bands(summary, "nll_by_samples")
    if not found:
        return None
    beside = {arm: _references(summary, arm) for arm in found}
    used = [name for name in YARDSTICKS if any(name in known for known in beside.values())]
    drawn = figure_layout(
        "Averaging over dropout masks",
        f"{AVERAGING} {axes.explained(measured_values.seeds(summary))}",
        len(found),
        [
            Line2D([], [], color="black", marker="o", markersize=4.5, label="dropout on, averaged"),
            *(Line2D([], [], color="black", linestyle=YARDSTICKS[name], label=name) for name in used),
        ],
        columns=min(2, len(found)),
        panel_height=2.4,
        titled=True,
    )
    for arm, panel in zip(found, drawn.panels, strict=True):
        x, band = found[arm]
        axes.line(panel, arm, x, band)
        panel.set_title(arm, fontweight="bold")
        _level(panel, beside[arm])
        _counted(panel, x)
    label_outer(drawn, "number of masks averaged", "negative log-likelihood (nats)")
    return drawn


def _references(summary: Summary, arm: str) -> dict[str, float]:
    """Return the mean losses of the references by name."""
    averaged, gain, above = (
        measured_values.means(summary, name).get(arm) for name in ("mc_nll", "mc_nll_gain", "mc_minus_scaled")
    )
    known = {}
    if averaged and gain:
        known["dropout off"] = averaged.mean + gain.mean
    if averaged and above:
        known["dropout off, temperature-scaled"] = averaged.mean - above.mean
    members = measured_values.bands(summary, "nll_by_members").get(arm)
    if members:
        known["ensemble of the retrainings"] = float(members[1].mean[-1])
    return known


def _level(panel: Axes, beside: Mapping[str, float]) -> None:
    for name, value in beside.items():
        panel.axhline(value, color=QUIET, linestyle=YARDSTICKS[name], linewidth=1.5, zorder=2)
    # Autoscaling ignores horizontal lines.
    panel.update_datalim([(1, value) for value in beside.values() if math.isfinite(value)], updatex=False)
    panel.autoscale_view()


def _counted(panel: Axes, x: tuple[float, ...]) -> None:
    """Set a logarithmic axis with ticks at the numbers of masks."""
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(FixedLocator([*x]))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
