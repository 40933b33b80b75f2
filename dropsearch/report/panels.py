"""Figures with a panel for each site: how many side by side, and the sites' names as they fit."""

from __future__ import annotations

import itertools

from matplotlib.lines import Line2D

from dropsearch.records import Summary
from dropsearch.report.numbers import shorten
from dropsearch.report.sheet import Sheet, sheet

CHARACTERS = 14.5
"""Of a panel's title that fit into an inch."""


def site_panels(
    title: str, sites: list[str], caption: str, keys: list[Line2D], *, alt: str = ""
) -> tuple[Sheet, list[str]]:
    """A sheet with one panel a site, and the sites' names as they fit above the panels."""
    few = len(sites) <= 4
    columns = len(sites) if few else 3 if len(sites) <= 6 else 4 if len(sites) <= 8 else 5
    room = int(CHARACTERS * 6.6 / columns)
    prefix = _common_folder(sites) if max(map(len, sites)) > room else ""
    if prefix:
        caption += f" Names of sites go on from {prefix}"
    drawn = sheet(
        title,
        caption,
        len(sites),
        keys,
        alt=alt,
        columns=columns,
        panel_height=2.4 if few else 1.35,
        titled=True,
    )
    return drawn, [shorten(site.removeprefix(prefix), room) for site in sites]


def _common_folder(sites: list[str]) -> str:
    """What all paths begin with, up to and with a dot."""
    paths = [site.split(".")[:-1] for site in sites]
    shared = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return "".join(f"{parts[0]}." for parts in shared)


def score_label(summary: Summary) -> str:
    """The name of the axis: what is monitored, and its negative where more of it is better."""
    if summary.monitor.is_val_loss:
        return "validation loss (nats)" if summary.judge.percent else "validation loss"
    return summary.monitor.name if summary.monitor.mode == "min" else f"\N{MINUS SIGN}{summary.monitor.name}"
