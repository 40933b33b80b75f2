"""The figure of paired differences between arms with their intervals."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from dropsearch.core.records import Comparison, Summary
from dropsearch.report import findings
from dropsearch.report.figures.axes import LONGEST_LABEL, margin, name_rows
from dropsearch.report.figures.layout import FigureLayout, figure_layout
from dropsearch.report.figures.palette import QUIET, arm_style
from dropsearch.report.measured_values import finite
from dropsearch.report.numbers import Scale, probability, shorten, with_unit
from dropsearch.report.text.contrast_phrases import of_different_models

CAPTION = (
    "Small dots: one pair of seeds each; large dots and lines: Hodges-Lehmann estimate and 95 % interval. Shown: "
    "p Holm (exact Wilcoxon, adjusted for all planned contrasts) below 0.05 and an interval without zero."
)

MOST_TICKS = 6
"""Maximum number of intervals between ticks; labels of more overlap if they have many digits."""


def differences(summary: Summary) -> FigureLayout | None:
    """Draw one row per planned contrast of different models; return None without contrasts."""
    # If all arms chose one model, the figure shows that they do not differ.
    contrasts = of_different_models(summary, summary.contrasts) or summary.contrasts
    if not contrasts:
        return None
    names = [f"{contrast.a} \N{MINUS SIGN} {contrast.b}" for contrast in contrasts]
    scale = Scale(summary.comparison_metric)
    keys = [
        Line2D([], [], color="black", marker="o", label="shown"),
        Line2D([], [], color="black", marker="o", markerfacecolor="white", label="not shown"),
    ]
    drawn = figure_layout(
        _title(contrasts, summary.comparison_metric.label),
        CAPTION,
        1,
        keys,
        panel_height=0.25 + 0.45 * len(names),
        left=0.05 + margin(names),
        right=2.0,
    )
    panel = drawn.panels[0]
    for row, contrast in enumerate(contrasts):
        _row(panel, row, contrast, scale)
    panel.axvline(0, color="black", linewidth=1.1, zorder=2)
    name_rows(panel, names)
    panel.xaxis.set_major_locator(MaxNLocator(MOST_TICKS))
    panel.set_xlim(*_limits(contrasts, _factor(scale)))
    unit = scale.unit.strip()
    of = f"{shorten(summary.comparison_metric.label, LONGEST_LABEL)} of the first arm minus the second"
    panel.set_xlabel(with_unit(of, "percentage points" if unit == "points" else unit))
    _beside(panel, -0.62, unit or "difference", "p Holm", color=QUIET)
    return drawn


def _factor(scale: Scale) -> float:
    return 100 if scale.comparison_metric.percent else 1


def _row(panel: Axes, row: int, contrast: Comparison, scale: Scale) -> None:
    colour, interval, factor = arm_style(contrast.a).colour, contrast.difference, _factor(scale)
    seeds = [factor * difference for difference in contrast.differences]
    panel.plot(seeds, [row + 0.24] * len(seeds), "o", color=colour, markersize=3.4, alpha=0.5, markeredgewidth=0)
    if math.isfinite(interval.low):
        panel.plot([factor * interval.low, factor * interval.high], [row, row], color=colour, linewidth=2.4, zorder=3)
    if math.isfinite(interval.mean):
        fill = colour if findings.shown(contrast) else "white"
        ring = {"markerfacecolor": fill, "markeredgecolor": colour, "markeredgewidth": 1.8}
        panel.plot([factor * interval.mean], [row], "o", markersize=7.5, zorder=4, **ring)
    _beside(panel, row, scale.differences(interval)[0].replace("-", "\N{MINUS SIGN}"), probability(contrast.p_holm))


def _limits(contrasts: list[Comparison], factor: float) -> tuple[float, float]:
    """Return limits of x that include all values and zero, for accuracies at least a tenth of a point wide."""
    drawn = [value for c in contrasts for value in (*c.differences, c.difference.low, c.difference.high)]
    known = [0.0, *(factor * value for value in finite(drawn))]
    room = max(0.06 * (max(known) - min(known)), 0.05 if factor == 100 else 1e-6)
    return min(known) - room, max(known) + room


def _beside(panel: Axes, row: float, difference: str, p: str, color: str = "black") -> None:
    """Write two columns of numbers to the right of the axis."""
    for place, text in ((0.85, difference), (1.7, p)):
        panel.annotate(
            text,
            (1, row),
            xycoords=("axes fraction", "data"),
            xytext=(72 * place, 0),
            textcoords="offset points",
            ha="right",
            va="center_baseline",
            color=color,
            annotation_clip=False,
        )


def _title(contrasts: list[Comparison], label: str) -> str:
    shown = sum(findings.shown(contrast) for contrast in contrasts)
    if not shown:
        return f"No difference in {label} could be shown"
    if len(contrasts) == 1:
        return f"The difference in {label} could be shown"
    return f"{shown} of {len(contrasts)} differences in {label} could be shown"
