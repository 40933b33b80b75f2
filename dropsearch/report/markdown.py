"""report.md: the report as Markdown, for terminals and pull requests."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from dropsearch.core.atomic_io import atomic_write_text
from dropsearch.core.printable import printable
from dropsearch.core.records import Summary
from dropsearch.report.figures.registry import Figure
from dropsearch.report.tables.arms import tables
from dropsearch.report.tables.evidence import claim_answer, contrasts_table, evidence_table
from dropsearch.report.text.caveats import caveats
from dropsearch.report.text.contents import facts, follow_ups, reading, settings, title
from dropsearch.report.text.escaping import block, escaped, prose
from dropsearch.report.text.verdict import answer, rates_by_site
from dropsearch.report.text.warnings import warnings


def write_markdown(
    summary: Summary, path: Path, figures: Sequence[Figure] = (), *, test_examples: int | None = None
) -> Path:
    """Write the report to `path` with relative links to figures, and return the path."""
    links = {_relative(figure.path, path.parent): figure.title for figure in figures}
    atomic_write_text(path, markdown(summary, links, test_examples))
    return path


def markdown(summary: Summary, links: Mapping[str, str] | None = None, test_examples: int | None = None) -> str:
    """Return the report as Markdown; `links` are the figures' titles by relative path."""
    blocks = [
        f"# {escaped(title(summary))}",
        *answer_blocks(summary),
        "## Numbers",
        *(_folded(t.title, t.as_markdown()) if t.is_long else t.as_markdown() for t in tables(summary)),
        reading(summary),
        *_evidence(summary),
        *_figures(links or {}),
        "## Caveats",
        _bullets(map(prose, caveats(summary, test_examples))) or "The numbers raise none.",
        "## What was run",
        _bullets(f"{topic}: {escaped(text)}" for topic, text in facts(summary)),
        *_commands(summary),
        *_config(settings(summary.config)),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def answer_blocks(summary: Summary) -> list[str]:
    """Return the sentences of the answer, and a list of what limits it, as blocks of Markdown."""
    sentences = [escaped(text) for text in (*answer(summary), rates_by_site(summary))]
    return [*sentences, _bullets(map(prose, warnings(summary)))]


def _evidence(summary: Summary) -> Iterator[str]:
    if summary.evidence is None:
        return
    yield "## Evidence"
    yield _bullets(
        f"{escaped(claim.statement)}: **{claim_answer(claim)}**. {escaped(claim.reason)}"
        for claim in summary.evidence.claims
    )
    for table in (evidence_table(summary).trimmed(), contrasts_table(summary).trimmed()):
        if table.rows:
            yield _folded(table.title, table.as_markdown())


def _folded(title: str, content: str) -> str:
    """Return a collapsed section."""
    return f"<details>\n<summary>{escape(printable(title))}</summary>\n\n{content}\n\n</details>"


def _figures(links: Mapping[str, str]) -> Iterator[str]:
    if links:
        yield "## Figures"
    for link, shown in links.items():
        yield f"![{escaped(shown)}](<{link}>)"


def _commands(summary: Summary) -> Iterator[str]:
    commands = list(follow_ups(summary, in_report=True))
    if commands:
        yield "## Commands"
    for purpose, command in commands:
        yield f"{purpose}\n\n{block(command)}" if command is not None else prose(purpose)


def _config(lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield "## Configuration"
        yield _folded("All settings", block("\n".join(lines)))


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _relative(figure: Path, folder: Path) -> str:
    return Path(os.path.relpath(figure, folder)).as_posix()
