"""Terminal output at the start and the end of a run."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from dropsearch.core.printable import printable
from dropsearch.core.records import Summary, best_arm
from dropsearch.report.tables.arms import brief_tables
from dropsearch.report.tables.table import WIDTH
from dropsearch.report.text.contents import follow_ups
from dropsearch.report.text.phrases import MOST_RATES
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


def closing(summary: Summary, rows: float = math.inf) -> str:
    """Return the answer, the tables of arms and rates, and follow-up commands as plain text of 80 columns.

    Commands can be copied, also those that are folded. The command that continues an interrupted run is the last one.
    Where a terminal has fewer rows, the answer, one table and that command remain, and the report has the rest: the
    table of arms, or that of rates if the answer refers to it.
    """
    sentences, tables, commands = _sentences(summary), _tables(summary), _commands(summary)
    blocks = [*sentences, *tables, _files(summary), "\n".join(commands)]
    if _height(blocks) > rows:
        needed = commands[-1:] if commands and not summary.complete else []
        kept, left_out = (tables[1:2], "arms") if _has_many_rates(summary) else (tables[:1], "rates by site")
        end = [_files(summary, left_out), *needed]
        blocks = [*sentences, *kept, *end]
        if _height(blocks) > rows:  # the table scrolls off the screen rather than the answer
            blocks = [*kept, *sentences, *end]
    return printable("\n" + "\n\n".join(filter(None, blocks)), keep="\n")


def rows_of(stream: Any) -> float:
    """Return the number of rows of a terminal; of a stream that is none, infinity."""
    with suppress(OSError, ValueError):
        if stream.isatty():
            return os.get_terminal_size(stream.fileno()).lines or math.inf
    return math.inf


def _height(blocks: Sequence[str]) -> int:
    """Return the number of rows of blocks with an empty row between them and the prompt of a shell below."""
    return sum(block.count("\n") + 2 for block in filter(None, blocks))


def _has_many_rates(summary: Summary) -> bool:
    """Return whether the winner has more rates than the answer lists."""
    best = best_arm(summary.arms)
    return best is not None and any((rates := summary.arms[best].rates).values()) and len(rates) > MOST_RATES


def _files(summary: Summary, left_out: str = "") -> str:
    if "output_dir" not in summary.config:
        return ""
    models = ", best/ with the models" if any(arm.winner for arm in summary.arms.values()) else ""
    more = f" (the {left_out}, and commands to see curves, to load and train models)" if left_out else ""
    return wrapped(f"In {summary.config['output_dir']}: report.html, report.md{more}, results.json{models}.")


def _commands(summary: Summary) -> list[str]:
    """Return follow-up commands with their purpose above them."""
    commands = follow_ups(summary, in_report=False)
    return [wrapped(text) if each is None else f"{text}\n{folded(each, WIDTH)}" for text, each in commands]


def first_screen(summary: Summary) -> list[str]:
    """Return the answer, what limits it, and the tables of arms and rates, as blocks of plain text."""
    return [*_sentences(summary), *_tables(summary)]


def _sentences(summary: Summary) -> list[str]:
    limits = [*warnings(summary), *filter(None, [rates_by_site(summary)])]
    return ["\n".join(map(wrapped, texts)) for texts in (answer(summary), limits) if texts]


def _tables(summary: Summary) -> list[str]:
    return [table.as_text() for table in brief_tables(summary)]


def wrapped(text: str, width: int = WIDTH) -> str:
    """Return `text` wrapped into lines of at most `width` characters; only a longer word is broken."""
    return "\n".join(textwrap.wrap(printable(" ".join(text.split())), width, break_on_hyphens=False))
