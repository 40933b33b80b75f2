"""Terminal output at the start and the end of a run."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from dropsearch.core.printable import printable
from dropsearch.core.records import Summary
from dropsearch.report.tables.arms import brief_tables
from dropsearch.report.tables.table import WIDTH
from dropsearch.report.text.contents import follow_ups
from dropsearch.report.text.shell import folded
from dropsearch.report.text.verdict import answer, rates_by_site
from dropsearch.report.text.warnings import warnings


def opening(title: str, facts: Mapping[str, str]) -> str:
    """Return a headline and the planned work: one line per topic, wrapped at 80 columns."""
    size = max(map(len, facts), default=0)
    lines = [_hanging(topic.ljust(size + 2), printable(text)) for topic, text in facts.items()]
    return "\n".join([wrapped(title), *lines]) + "\n"


def _hanging(head: str, text: str) -> str:
    """Return `text` wrapped after `head` with a hanging indent."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=f"  {head}",
        subsequent_indent=" " * (len(head) + 2),
        break_on_hyphens=False,
    )


def closing(summary: Summary) -> str:
    """Return the answer, the tables of arms and rates, and follow-up commands as plain text of 80 columns.

    Commands can be copied, also those that are folded. The command that continues an interrupted run is the last one.
    """
    blocks = first_screen(summary)
    if "output_dir" in summary.config:
        models = ", best/ with the models" if any(arm.winner for arm in summary.arms.values()) else ""
        blocks.append(wrapped(f"In {summary.config['output_dir']}: report.html, report.md, results.json{models}."))
    commands = follow_ups(summary, in_report=False)
    blocks.append(
        "\n".join(wrapped(text) if each is None else f"{text}\n{folded(each, WIDTH)}" for text, each in commands)
    )
    return printable("\n" + "\n\n".join(block for block in blocks if block), keep="\n")


def first_screen(summary: Summary) -> list[str]:
    """Return the answer, what limits it, and the tables of arms and rates, as blocks of plain text."""
    limits = [*warnings(summary), *filter(None, [rates_by_site(summary)])]
    sentences = ["\n".join(map(wrapped, texts)) for texts in (answer(summary), limits) if texts]
    return [*sentences, *(table.as_text() for table in brief_tables(summary))]


def wrapped(text: str, width: int = WIDTH) -> str:
    """Return `text` wrapped into lines of at most `width` characters; only a longer word is broken."""
    return "\n".join(textwrap.wrap(printable(" ".join(text.split())), width, break_on_hyphens=False))
