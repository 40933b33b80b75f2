"""The picture of the rates found, site by site, beside the typical ones."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from dropsearch.core.records import Summary
from dropsearch.report import findings
from dropsearch.report.figures.axes import label_outer
from dropsearch.report.figures.layout import FigureLayout, figure_layout, key
from dropsearch.report.figures.palette import QUIET, arm_style
from dropsearch.report.text.numbers import shorten

LONGEST = 30
"""Characters of a site's name that fit beside the panel."""


def found(summary: Summary) -> FigureLayout | None:
    """One row a site: the typical rate and that of each arm; None where no arm searched a rate."""
    arms = {name: arm for name, arm in summary.arms.items() if arm.arm.dropout in ("search", "shared")}
    rates = {name: known for name, arm in arms.items() if (known := findings.rates(arm))}
    sites = [site.name for site in summary.sites if any(site.name in known for known in rates.values())]
    if not sites:
        return None
    typical = {name: rate for arm in arms.values() for name, rate in arm.typical.items()}
    names = [shorten(site, LONGEST) for site in sites]
    drawn = figure_layout(
        "Dropout rates found beside the typical ones",
        "One row a site, in the order of a forward pass. A rate is the probability that an activation is dropped.",
        1,
        [
            *(key(name, dots=True) for name in rates),
            Line2D([], [], linestyle="", marker="|", markersize=14, markeredgewidth=2, color=QUIET, label="typical"),
        ],
        alt="; ".join(_said(site, rates, typical) for site in sites),
        panel_height=0.3 + 0.34 * len(sites),
        left=0.3 + 0.078 * max(map(len, names)),
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
        # Equal rates stay apart: each arm has a height of its own within the row.
        height = row + 0.16 * (place - (len(rates) - 1) / 2)
        panel.plot(
            [rate], [height], arm_style(arm).marker, color=arm_style(arm).colour, markersize=6, zorder=3, clip_on=False
        )


def _said(site: str, rates: dict, typical: dict[str, float]) -> str:
    said = ", ".join(f"{arm} {known[site]:.2f}" for arm, known in rates.items() if site in known)
    return f"{site}: {said}, typical {typical[site]:.2f}" if site in typical else f"{site}: {said}"
