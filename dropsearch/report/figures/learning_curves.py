"""The figure of learning curves: train and validation loss of each arm's winner."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from dropsearch.core.records import ArmOutcome, Summary, TrialResult
from dropsearch.report.figures.axes import label_outer, loss_axis, say, whole_numbers
from dropsearch.report.figures.layout import FigureLayout, figure_layout
from dropsearch.report.figures.palette import QUIET, Line, arm_style
from dropsearch.report.measured_values import FEWEST_FOR_INTERVAL, curve_band
from dropsearch.report.numbers import loss, with_unit
from dropsearch.report.text.phrases import counted

LOWEST = 1 / 40
"""Train losses below this share of the lowest validation loss are outside of the axis."""


def curves(summary: Summary) -> FigureLayout | None:
    """Draw one panel per arm: mean loss over seeds by epoch with a band, validation solid and train dashed.

    Returns None if a user module logs no validation loss.
    """
    if not summary.monitor.is_val_loss and not math.isfinite(_least_validation(summary)):
        return None
    outcomes = list(summary.arms.items())
    columns = 2 if len(outcomes) in (2, 4) else min(3, max(len(outcomes), 1))
    drawn = figure_layout(
        "Train and validation loss of each arm's winner",
        _caption(summary),
        max(len(outcomes), 1),
        [Line2D([], [], color="black", linestyle=line, label=name) for name, line in _LINES.values()],
        columns=columns,
        titled=True,
    )
    if not outcomes:
        say(drawn.panels[0], "nothing to draw")
        return drawn
    values = [
        value
        for (name, outcome), panel in zip(outcomes, drawn.panels, strict=True)
        for value in _panel(panel, name, outcome)
    ]
    for panel in drawn.panels:
        whole_numbers(panel)
        loss_axis(panel, values, floor=LOWEST * _least_validation(summary))
    label_outer(drawn, "epoch", with_unit("loss", summary.comparison_metric.loss_unit))
    return drawn


_LINES: dict[str, tuple[str, Line]] = {"val_loss": ("validation", "-"), "train_loss": ("train, dropout off", "--")}


def _panel(panel: Axes, name: str, outcome: ArmOutcome) -> list[float]:
    """Draw one arm and return the drawn losses."""
    results = _retrained(outcome)
    panel.set_title(name if outcome.winner else f"{name}: not confirmed", fontweight="bold")
    if not results:
        panel.set_title(name, fontweight="bold")
        say(panel, "no trial was completed")
        return []
    colour = arm_style(name).colour
    values: list[float] = []
    for metric, (_, line) in _LINES.items():
        band = curve_band(results, metric)
        measured = ~np.isnan(band.mean)  # a trial of a search measures the train loss in some epochs only
        epochs = np.arange(1, len(band.mean) + 1)[measured]
        panel.plot(
            epochs,
            band.mean[measured],
            line,
            color=colour,
            linewidth=1.8 if line == "-" else 1.4,
            marker="o" if len(epochs) == 1 else None,
        )
        panel.fill_between(epochs, band.low[measured], band.high[measured], color=colour, alpha=0.18, linewidth=0)
        values += band.mean.tolist()
    beside = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
    panel.text(
        0.98,
        0.97,
        _gap(results),
        transform=panel.transAxes,
        ha="right",
        va="top",
        fontsize=8.5,
        color=QUIET,
        bbox=beside,
    )
    return values


def _retrained(outcome: ArmOutcome) -> list[TrialResult]:
    """Return the winner's retrainings, or the best trial of the search without a confirmation."""
    if outcome.winner is not None:
        return [result for result in outcome.winner.results if result.curve]
    return [outcome.best] if outcome.best else []


def _gap(results: list[TrialResult]) -> str:
    best = [result.best for result in results if result.best]
    if not best:
        return "diverged"
    gap = sum(point.val_loss - point.train_loss for point in best) / len(best)
    if math.isnan(gap):
        return ""
    return f"validation minus train\nat the best epoch: {loss(gap, sign=True)}"


def _least_validation(summary: Summary) -> float:
    results = [result for outcome in summary.arms.values() for result in _retrained(outcome)]
    return min((result.best.val_loss for result in results if result.best), default=0.0)


def _bands(seeds: set[int]) -> str:
    if seeds == {1}:
        return "Lines: one fresh seed."
    listed = " or ".join(str(count) for count in sorted(seeds))
    interval, spread = "95 % interval of the mean (Student's t)", "range from least to greatest"
    if min(seeds) >= FEWEST_FOR_INTERVAL:
        band = interval
    elif max(seeds) < FEWEST_FOR_INTERVAL:
        band = spread
    else:
        band = f"{interval}, with fewer than {FEWEST_FOR_INTERVAL} seeds the {spread}"
    return f"Lines: mean over {listed} fresh seeds; bands: {band}."


def _caption(summary: Summary) -> str:
    seeds = {len(arm.winner.results) for arm in summary.arms.values() if arm.winner}
    text = "Both losses with dropout off; the train loss on a fixed part of the training set."
    if seeds:
        text = f"{_bands(seeds)} {text}"
    if any(not arm.winner for arm in summary.arms.values()):
        text += " An arm that was not confirmed shows the best trial of its search."
    diverged = sum(math.isinf(value) for arm in summary.arms.values() if arm.winner for value in arm.winner.val_loss)
    return f"{text} Left out: {counted(diverged, 'retraining')} without a finite loss." if diverged else text
