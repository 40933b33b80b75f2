"""Common texts of both reports: title, explanation of the tables, facts and settings of the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dropsearch.core.override_text import leaves
from dropsearch.core.records import Summary
from dropsearch.report import findings
from dropsearch.report.text.phrases import counted, question

PURPOSES = {
    "mlflow": "To see every curve in the browser:",
    "run": "The run itself in MLflow:",
    "wandb": "The runs in Weights & Biases:",
    "tensorboard": "To see every curve in TensorBoard:",
    "reload": "To load the model to keep:",
    "retrain": "To train it again:",
}
"""Purpose of each command of a summary, except the one that continues the study."""
INTERRUPTED = "To continue where this stopped:"


def follow_ups(summary: Summary, *, in_report: bool) -> Iterator[tuple[str, str | None]]:
    """Yield the purpose of each command of a summary and the command, in a report or in the terminal.

    The command that continues the study is the last one. Where none loads the winner, the reason stands in its place,
    with None.
    """
    known, reason = _purposes(summary, in_report), summary.not_loaded
    for name, command in sorted(summary.commands.items(), key=lambda each: each[0] == "continue"):
        if reason and name in ("retrain", "continue"):
            yield f"No command loads the model to keep: {reason}", None
            reason = ""
        yield known.get(name, f"{name}:"), command
    if reason:
        yield f"No command loads the model to keep: {reason}", None


def _purposes(summary: Summary, in_report: bool) -> dict[str, str]:
    budget = str(summary.config.get("budget") or "")
    if budget and "trial" not in budget.lower():
        more = f"continue it here for another {budget}"
    else:
        more = f"continue it here with a larger {'budget' if budget else 'study.n_trials'}"
    if in_report:
        return PURPOSES | {"continue": f"To reproduce this run in a new folder, or to {more}:"}
    return PURPOSES | {"continue": f"Repeat the command to {more}:" if summary.complete else INTERRUPTED}


def title(summary: Summary) -> str:
    """Return the title: model, data and question."""
    return f"{summary.model} on {summary.data}: {question(summary.arms)}"


def reading(summary: Summary) -> str:
    """Return an explanation of the tables."""
    text = (
        "Search and confirmed validation losses are those of the same configuration; search luck is by "
        "how much the confirmed one is worse. Rates are probabilities that an activation is dropped."
    )
    if summary.comparisons:
        text += (
            " Differences are paired by seed: p is that of the exact two-sided Wilcoxon signed-rank test"
            f"{_larger(summary)}, p Holm is adjusted for all planned contrasts. A difference counts as shown where "
            "p Holm is below 0.05 and the interval leaves out zero."
        )
    return text


def _larger(summary: Summary) -> str:
    """Return which other test the p-values also rest on; empty if none."""
    covered = next((each.covers for each in summary.comparisons if each.over_seeds is not None), "")
    return f" over seeds or of the test over {covered}, whichever is larger" if covered else ""


def facts(summary: Summary) -> Iterator[tuple[str, str]]:
    """Yield facts about the run as topic and text."""
    trials = sum(len(arm.trials) for arm in summary.arms.values())
    retrained = sum(len(c.results) for arm in summary.arms.values() for c in arm.confirmed)
    yield "study", f"{summary.study}, seed {summary.seed}, engine {summary.engine}"
    trained, took = f"{counted(trials, 'trial')} and {counted(retrained, 'retraining')}", duration(summary.seconds)
    before = f", those of earlier commands and other processes included; this one took {took}"
    yield "trained", trained + (before if summary.trained_before else f" in {took}")
    if measured := findings.measuring(summary):
        yield "evidence", measured
    seeds = next((arm.winner.seeds for arm in summary.arms.values() if arm.winner), ())
    if seeds:
        yield "confirmation seeds", ", ".join(map(str, seeds))
    opened = [f"{name} {arm.test.opened_at}" for name, arm in summary.arms.items() if arm.test]
    if opened:
        yield "test set opened", ", ".join(opened)
    if summary.versions:
        yield "versions", ", ".join(f"{name} {version}" for name, version in summary.versions.items())
    if summary.tracking:
        yield "tracking", ", ".join(f"{key} {value}" for key, value in summary.tracking.items())


def settings(config: Mapping[str, Any]) -> list[str]:
    """Return each leaf of the configuration as ``group.key=value``, sorted, without groups that were not read."""
    used = {name: value for name, value in config.items() if _is_read(name, config)}
    return sorted(f"{key}={'null' if value is None else value}" for key, value in leaves(used))


def _is_read(group: str, config: Mapping[str, Any]) -> bool:
    if group == "retrain":
        return config.get("task") == "retrain"
    # A module of the user makes its own optimizer; a model takes the group by a reference.
    return group != "optimizer" or "${optimizer" in str(config.get("model", ""))


def duration(seconds: float) -> str:
    """Return seconds as ``48 s``, ``2 min 05 s`` or ``3 h 20 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
