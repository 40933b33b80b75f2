"""What is printed when a run ends."""

from __future__ import annotations

import textwrap

from dropsearch.records import Summary
from dropsearch.report.tables import WIDTH, tables
from dropsearch.report.verdict import verdict

PURPOSES = {
    "mlflow": "To see every curve:",
    "reload": "To reload the winner:",
    "retrain": "To train the winner again:",
    "continue": "To continue this study:",
}


def closing(summary: Summary) -> str:
    """The tables, the verdict and the exact commands that lead on, as plain text of at most 100 columns.

    Commands stand on lines of their own, unbroken whatever their length, so that they can be copied; that
    which continues an interrupted run is the last line.
    """
    blocks = [table.as_text() for table in tables(summary)]
    blocks.append(wrapped(verdict(summary)))
    last = {"continue": summary.commands["continue"]} if "continue" in summary.commands else {}
    commands = {name: command for name, command in summary.commands.items() if name not in last} | last
    blocks += [f"{PURPOSES.get(name, f'{name}:')}\n  {command}" for name, command in commands.items()]
    return "\n\n".join(blocks)


def wrapped(text: str, width: int = WIDTH) -> str:
    """`text` broken between words into lines of at most `width` characters."""
    return "\n".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False))
