"""Figures of the search: found rates, score by rate, and best score by budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from dropsearch.core.records import Response, Summary
from dropsearch.report.figures.axes import (
    ceiling,
    label_outer,
    margin,
    score_label,
    show_as_logged,
    site_panels,
    whole_numbers,
)
from dropsearch.report.figures.layout import FigureLayout, figure_layout, key
from dropsearch.report.figures.palette import QUIET, arm_style
from dropsearch.report.measured_values import finite
from dropsearch.report.numbers import shorten

LONGEST = 30
"""Maximum number of characters of a site's name next to the panel."""


def found(summary: Summary) -> FigureLayout | None:
    """Draw one row per site with the typical rate and that of each arm; return None if no rate was searched."""
    arms = {name: arm for name, arm in summary.arms.items() if arm.arm.dropout in ("search", "shared")}
    rates = {name: known for name, arm in arms.items() if (known := arm.rates)}
    sites = [site.name for site in summary.sites if any(site.name in known for known in rates.values())]
    if not sites:
        return None
    typical = {name: rate for arm in arms.values() for name, rate in arm.typical.items()}
    names = [shorten(site, LONGEST) for site in sites]
    drawn = figure_layout(
        "Found and typical dropout rates",
        "One row a site, in the order of a forward pass. A rate is the probability that an activation is dropped.",
        1,
        [
            *(key(name, dots=True) for name in rates),
            Line2D([], [], linestyle="", marker="|", markersize=14, markeredgewidth=2, color=QUIET, label="typical"),
        ],
        panel_height=0.3 + 0.34 * len(sites),
        left=margin(names),
    )
    panel = drawn.panels[0]
    for row, site in enumerate(sites):
        _row(panel, row, {arm: known[site] for arm, known in rates.items() if site in known}, typical.get(site))
    panel.set_yticks(range(len(sites)), names)
    panel.set_ylim(len(sites) - 0.4, -0.6)
    panel.tick_params(axis="y", length=0)
    panel.set_xlim(-0.03, 0.95)
    label_outer(drawn, "dropout rate", "")
    return drawn


def _row(panel: Axes, row: int, rates: dict[str, float], typical: float | None) -> None:
    if typical is not None and math.isfinite(typical):
        panel.plot([typical], [row], "|", markersize=14, markeredgewidth=2, color=QUIET, zorder=2)
    for place, (arm, rate) in enumerate(rates.items()):
        # Each arm has its own height within the row, so that equal rates do not overlap.
        height = row + 0.16 * (place - (len(rates) - 1) / 2)
        panel.plot(
            [rate], [height], arm_style(arm).marker, color=arm_style(arm).colour, markersize=6, zorder=3, clip_on=False
        )


CAPTION = (
    "Lines: expected score at a rate, averaged over what else was searched; bands: 95 %. Rings: the rate that was "
    "chosen; dotted: the typical rate. In brackets the site's share of what the rates explain of good trials' scores "
    "(PED-ANOVA)."
)


def responses(summary: Summary) -> FigureLayout | None:
    """Draw one panel per site and one line per arm; return None without estimated responses."""
    known = summary.evidence.responses if summary.evidence else {}
    by_site: dict[str, dict[str, Response]] = {}
    for arm in summary.arms:
        for response in known.get(arm, ()):
            by_site.setdefault(response.site, {})[arm] = response
    if not by_site:
        return None
    arms = [arm for arm in summary.arms if known.get(arm)]
    drawn, names = site_panels(
        "What each rate does to the score",
        list(by_site),
        CAPTION,
        [key(arm) for arm in arms],
    )
    for found, name, panel in zip(by_site.values(), names, drawn.panels, strict=True):
        panel.set_title(name, fontsize=9)
        for arm, response in found.items():
            _curve(panel, arm, response)
        _shares(panel, found)
    _limit_responses(drawn.panels[0], by_site)
    show_as_logged(drawn.panels, summary.monitor)
    label_outer(drawn, "dropout rate", score_label(summary))
    return drawn


def _curve(panel: Axes, arm: str, response: Response) -> None:
    drawn = arm_style(arm)
    panel.plot(response.rates, response.expected, drawn.line, color=drawn.colour, linewidth=1.8)
    panel.fill_between(response.rates, response.low, response.high, color=drawn.colour, alpha=0.16, linewidth=0)
    if math.isfinite(response.typical):
        panel.axvline(response.typical, color=QUIET, linestyle=":", linewidth=1.2, zorder=1)
    if math.isfinite(response.found):
        nearest = min(range(len(response.rates)), key=lambda place: abs(response.rates[place] - response.found))
        ring = {"markerfacecolor": "none", "markeredgecolor": drawn.colour, "markeredgewidth": 1.5}
        panel.plot([response.found], [response.expected[nearest]], "o", markersize=8, zorder=4, **ring)


def _shares(panel: Axes, found: Mapping[str, Response]) -> None:
    """Write importances in a corner, in the colors of the arms."""
    for row, (arm, response) in enumerate(found.items()):
        if math.isfinite(response.importance):
            place = {"xytext": (-3, -2 - 11 * row), "textcoords": "offset points", "ha": "right", "va": "top"}
            colour = arm_style(arm).colour
            panel.annotate(
                f"({100 * response.importance:.0f} %)",
                (1, 1),
                xycoords="axes fraction",
                color=colour,
                fontsize=8,
                **place,
            )


def _limit_responses(panel: Axes, by_site: Mapping[str, Mapping[str, Response]]) -> None:
    """Limit the axis to the lines and the nearby part of their bands."""
    curves = [response for found in by_site.values() for response in found.values()]
    lows = [value for response in curves for value in response.low]
    _limit(panel, lows, [value for response in curves for value in (*response.expected, *response.high)])


def _limit(panel: Axes, lows: Sequence[float], values: Sequence[float]) -> None:
    """Limit the axis to the lowest value, and to the ceiling of values, so that bad ones do not dominate."""
    low, top = min(finite(lows), default=math.inf), ceiling(values)
    if math.isfinite(low) and math.isfinite(top):
        room = 0.06 * (top - low) or 0.01
        panel.set_ylim(low - room, top + room)


SOURCES = {
    "trials": "Estimated from the trials of one search, as if they were independent.",
    "repeats": "Seen in repeated searches.",
}


def budgets(summary: Summary) -> FigureLayout | None:
    """Draw the expected best score by number of trials, one line and band per arm; return None if not estimated."""
    known = summary.evidence.budgets if summary.evidence else {}
    found = {arm: known[arm] for arm in summary.arms if arm in known and known[arm].trials}
    if not found:
        return None
    sources = dict.fromkeys(SOURCES[budget.source] for budget in found.values())
    drawn = figure_layout(
        "Expected best score by number of trials",
        f"Bands: 95 %. {' '.join(sources)} The best of a search flatters: confirmed scores decide.",
        1,
        [key(arm) for arm in found],
        panel_height=3.0,
    )
    panel = drawn.panels[0]
    for arm, budget in found.items():
        shape = arm_style(arm)
        marker = shape.marker if len(budget.trials) == 1 else None
        panel.plot(budget.trials, budget.expected, shape.line, color=shape.colour, linewidth=1.8, marker=marker)
        panel.fill_between(budget.trials, budget.low, budget.high, color=shape.colour, alpha=0.16, linewidth=0)
    whole_numbers(panel)
    lows = [value for budget in found.values() for value in (*budget.low, *budget.expected)]
    _limit(panel, lows, [value for budget in found.values() for value in budget.expected])
    show_as_logged(drawn.panels, summary.monitor)
    label_outer(drawn, "trials of a search", f"expected best {score_label(summary)}")
    return drawn
