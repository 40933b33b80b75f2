"""Short phrases that several texts use."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from dropsearch.core.records import ARMS, Summary, arm_title

MOST_RATES = 6
"""Maximum number of rates in a sentence; more are in the table."""


def short_names(sites: Sequence[str]) -> list[str]:
    """Return the paths of sites without the suffix `dropout` and without their common prefix."""
    parts = [path[:-1] if len(path) > 1 and path[-1] == "dropout" else path for path in (s.split(".") for s in sites)]
    while all(len(path) > 1 for path in parts) and len({path[0] for path in parts}) == 1:
        parts = [path[1:] for path in parts]
    return [".".join(path) for path in parts]


def question(arms: Collection[str]) -> str:
    """Return what a run of these arms asks."""
    known = [ARMS[arm] for arm in arms if arm in ARMS]
    if not any(arm.dropout in ("search", "shared") for arm in known):
        *first, last = map(arm_title, arms or ("no arm",))
        return f"{', '.join(first)} or {last}" if first else f"how good is {last}"
    batchnorm = ", and is BatchNorm better" if any(arm.batchnorm for arm in known) else ""
    return f"which dropout rates{batchnorm}{', or both' if 'both' in arms and 'batchnorm' in arms else ''}"


def on_test(summary: Summary) -> bool:
    """Return whether arms are compared on a test set."""
    return summary.comparison_metric.scores != "val_loss"


def comparison_set(summary: Summary) -> str:
    """Return the name of the set on which arms are compared."""
    return "test set" if on_test(summary) else "validation set"


def monitored(summary: Summary) -> str:
    """Return the name of the monitored metric."""
    return "validation loss" if summary.monitor.is_val_loss else summary.monitor.name


def listed(names: Sequence[str]) -> str:
    """Return names as a list in a sentence."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def capitalized(text: str) -> str:
    """Return a sentence with a capital letter; only the first one changes, as in BatchNorm."""
    return f"{text[:1].upper()}{text[1:]}"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: ``1 trial``, ``2 trials``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
