"""report.md: the run for a human reader, the verdict first."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dropsearch.records import Summary
from dropsearch.report import findings
from dropsearch.report.caveats import caveats
from dropsearch.report.files import write_whole
from dropsearch.report.tables import tables
from dropsearch.report.verdict import verdict

CAPTIONS = {
    "curves": "Train and validation loss of each arm's winner",
    "best_so_far": "Least validation loss by trial",
    "rates": "Dropout rate against validation loss, by site",
    "differences": "Paired differences between arms",
}


def write_report(
    summary: Summary, path: Path, figures: Sequence[Path] = (), *, test_examples: int | None = None
) -> Path:
    """Write the page as Markdown to `path`, figures linked relative to it, and return the path."""
    write_whole(path, page(summary, [_relative(figure, path.parent) for figure in figures], test_examples))
    return path


def page(summary: Summary, links: Sequence[str] = (), test_examples: int | None = None) -> str:
    """The page as Markdown; `links` are the figures' paths as seen from it."""
    blocks = [
        f"# {summary.model} on {summary.data}: {_question(summary)}",
        verdict(summary),
        "## Numbers",
        *(table.as_markdown() for table in tables(summary)),
        _reading(summary),
        *_figures(links),
        "## Caveats",
        _bullets(caveats(summary, test_examples)) or "The numbers raise none.",
        "## What was run",
        _bullets(_facts(summary)),
        *_commands(summary.commands),
        *_config(summary.config),
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _question(summary: Summary) -> str:
    if any(arm.arm.batchnorm for arm in summary.arms.values()) or summary.judge.percent:
        return "dropout, BatchNorm, both or neither"
    return "which dropout rates"


def _reading(summary: Summary) -> str:
    text = (
        "Search and confirmed validation losses are those of the same configuration; their gap is what the "
        "search owed to luck. Rates are probabilities that an activation is dropped."
    )
    if summary.comparisons:
        text += (
            " Differences are paired by seed: p is the exact two-sided Wilcoxon signed-rank test, p Holm is "
            "adjusted for all planned contrasts. A difference counts as shown where p Holm is below 0.05 and "
            "the interval leaves out zero."
        )
    return text


def _figures(links: Sequence[str]) -> Iterator[str]:
    if links:
        yield "## Figures"
    for link in links:
        stem = Path(link).stem
        yield f"![{CAPTIONS.get(stem, stem)}](<{link}>)"


def _facts(summary: Summary) -> Iterator[str]:
    trials = sum(len(arm.trials) for arm in summary.arms.values())
    retrained = sum(len(c.results) for arm in summary.arms.values() for c in arm.confirmed)
    yield f"study `{summary.study}`, seed {summary.seed}, engine {summary.engine}"
    yield f"{trials} trials and {retrained} retrainings in {duration(summary.seconds)}"
    if measured := findings.measuring(summary):
        yield measured
    seeds = next((arm.winner.seeds for arm in summary.arms.values() if arm.winner), ())
    if seeds:
        yield f"confirmation seeds: {', '.join(map(str, seeds))}"
    opened = [f"{name} {arm.test.opened_at}" for name, arm in summary.arms.items() if arm.test]
    if opened:
        yield f"test set opened: {', '.join(opened)}"
    if summary.versions:
        yield "versions: " + ", ".join(f"{name} {version}" for name, version in summary.versions.items())
    if summary.mlflow:
        yield "MLflow: " + ", ".join(f"{key} `{value}`" for key, value in summary.mlflow.items())


def _commands(commands: Mapping[str, str]) -> Iterator[str]:
    if commands:
        yield "## Commands"
    for purpose, command in commands.items():
        yield f"{purpose}:\n\n```\n{command}\n```"


def _config(config: Mapping[str, Any]) -> Iterator[str]:
    lines = sorted(_flat(config))
    if lines:
        yield "## Configuration"
        yield "```\n" + "\n".join(lines) + "\n```"


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Each leaf as ``group.key=value``."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={'null' if value is None else value}"


def duration(seconds: float) -> str:
    """Seconds as people say them: ``48 s``, ``2 min 05 s``, ``3 h 20 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _relative(figure: Path, folder: Path) -> str:
    return Path(os.path.relpath(figure, folder)).as_posix()
