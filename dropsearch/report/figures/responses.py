"""The picture of how much each rate matters: the expected score over the range, site by site."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.axes import Axes

from dropsearch.core.records import Response, Summary
from dropsearch.report.figures.axes import ceiling, label_outer, score_label, site_panels
from dropsearch.report.figures.layout import FigureLayout, key
from dropsearch.report.figures.palette import QUIET, arm_style

CAPTION = (
    "Lines: expected score at a rate, averaged over what else was searched; bands: 95 %. Rings: the rate that was "
    "chosen; dotted: the typical rate. In brackets the site's share of what the rates explain of good trials' scores "
    "(PED-ANOVA)."
)


def responses(summary: Summary) -> FigureLayout | None:
    """One panel a site, one line an arm; None where no response was estimated."""
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
        alt=". ".join(f"{site}: {_said(found)}" for site, found in by_site.items()),
    )
    for found, name, panel in zip(by_site.values(), names, drawn.panels, strict=True):
        panel.set_title(name, fontsize=9)
        for arm, response in found.items():
            _curve(panel, arm, response)
        _shares(panel, found)
    _limit(drawn.panels[0], by_site)
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
    """Importances in a corner, in the colours of the arms."""
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


def _limit(panel: Axes, by_site: Mapping[str, Mapping[str, Response]]) -> None:
    """Leave out of the axis what a band does far beyond the lines."""
    curves = [response for found in by_site.values() for response in found.values()]
    lows = [value for response in curves for value in response.low if math.isfinite(value)]
    top = ceiling([value for response in curves for value in (*response.expected, *response.high)])
    if lows and math.isfinite(top):
        room = 0.06 * (top - min(lows)) or 0.01
        panel.set_ylim(min(lows) - room, top + room)


def _said(found: Mapping[str, Response]) -> str:
    said = []
    for arm, response in found.items():
        best = min(range(len(response.rates)), key=lambda place: response.expected[place])
        share = f", importance {100 * response.importance:.0f} %" if math.isfinite(response.importance) else ""
        said.append(
            f"{arm} expects least at a rate of {response.rates[best]:.2f} and chose {response.found:.2f}{share}"
        )
    return "; ".join(said)
