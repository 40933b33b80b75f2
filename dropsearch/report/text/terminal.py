"""What is printed when a run begins and when it ends."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from dropsearch.core.printable import printable
from dropsearch.core.records import Summary, best_arm
from dropsearch.report import findings
from dropsearch.report.tables.arms import WIDTH, tables
from dropsearch.report.text.caveats import without_dropout
from dropsearch.report.text.numbers import loss
from dropsearch.report.text.score_scale import Scale, judged, leader
from dropsearch.report.text.verdict import on_test, rates_by_site, verdict

PURPOSES = {
    "mlflow": "To see every curve in the browser:",
    "reload": "To load the model to keep:",
    "retrain": "To train it again:",
    "continue": "To go on with this study, give the same command with a larger study.n_trials:",
}
INTERRUPTED = "To continue where this stopped:"


def opening(title: str, facts: Mapping[str, str]) -> str:
    """A headline, and below it what is about to be done: a line a topic, wrapped at 100 columns."""
    size = max(map(len, facts), default=0)
    lines = [_hanging(topic.ljust(size + 2), text) for topic, text in facts.items()]
    return printable("\n".join([title, *lines]) + "\n", keep="\n")


def _hanging(head: str, text: str) -> str:
    """`text` wrapped behind `head`, its further lines indented by as much."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=f"  {head}",
        subsequent_indent=" " * (len(head) + 2),
        break_long_words=False,
        break_on_hyphens=False,
    )


def closing(summary: Summary) -> str:
    """The tables, the verdict and the exact commands that lead on, as plain text of at most 100 columns.

    Commands stand on lines of their own, unbroken whatever their length, so that they can be copied; that
    which continues an interrupted run is the last line.
    """
    blocks = [table.as_text() for table in tables(summary, brief=True)]
    told = (verdict(summary), rates_by_site(summary), " ".join(without_dropout(summary)), kept(summary))
    blocks += [wrapped(text) for text in told if text]
    if "output_dir" in summary.config:
        models = ", and best/ with the models" if any(arm.winner for arm in summary.arms.values()) else ""
        blocks.append(f"In {summary.config['output_dir']}: report.html, report.md, figures, results.json{models}.")
    if measured := findings.measuring(summary):
        blocks.append(f"{measured[0].upper()}{measured[1:]}.")
    last = {"continue": summary.commands["continue"]} if "continue" in summary.commands else {}
    commands = {name: command for name, command in summary.commands.items() if name not in last} | last
    purposes = PURPOSES if summary.complete else PURPOSES | {"continue": INTERRUPTED}
    blocks += [f"{purposes.get(name, f'{name}:')}\n  {command}" for name, command in commands.items()]
    return printable("\n" + "\n\n".join(blocks), keep="\n")


def kept(summary: Summary) -> str:
    """Which arm's model is kept, and why that may not be the one with the best test accuracy.

    Empty where nothing was confirmed.
    """
    name = best_arm(summary.arms)
    if name is None:
        return ""
    choice = f"The model to keep is that of {name}"
    confirmed = loss(findings.confirmed_loss(summary.arms[name]))
    why = f"the least validation loss on fresh seeds ({confirmed} nats)"
    if not summary.comparison_metric.percent:
        why = f"the best {summary.monitor.name} on fresh seeds ({confirmed})"
    scores = {arm: judged(outcome, summary.comparison_metric).mean for arm, outcome in findings.tested(summary).items()}
    first = leader(scores, summary.comparison_metric) if scores else name
    if first == name or scores[first] == scores.get(name) or not on_test(summary):
        return f"{choice}: it has {why}."
    return (
        f"{choice}, for it has {why}. {first} has a better mean {summary.comparison_metric.label} "
        f"({Scale(summary.comparison_metric).value(scores[first])}), but the test set judges the choice, and has "
        "no say in it."
    )


def wrapped(text: str, width: int = WIDTH) -> str:
    """`text` broken between words into lines of at most `width` characters."""
    return "\n".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False))
