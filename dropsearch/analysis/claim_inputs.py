"""Inputs of claims: measured arms, arms with nonzero rates, and the contrasts of the comparison metric."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from dropsearch.analysis.claim_rules import Finding
from dropsearch.core.records import Comparison, Evidence, Summary, arm_title
from dropsearch.stats.intervals import finite_mean


def winner_rates(summary: Summary, arm: str) -> Mapping[str, float]:
    """Return the rates of an arm's winner by site; empty without a winner or without dropout."""
    winner = summary.arms[arm].winner if arm in summary.arms else None
    return winner.results[0].spec.rates if winner and winner.results else {}


def drops(summary: Summary, arm: str) -> bool:
    """Return whether any rate of an arm's winner is above 0."""
    return any(winner_rates(summary, arm).values())


def untested(arms: Iterable[str]) -> str:
    """Return a sentence that says that all rates are zero, so dropout was not tested."""
    names = " and ".join(dict.fromkeys(map(arm_title, arms)))
    return f"Every rate of the winner of {names} is 0, so dropout was not tested."


def ran(summary: Summary) -> str:
    """Return a clause that lists the arms with a winner."""
    won = [outcome.arm.title for outcome in summary.arms.values() if outcome.winner]
    return f"this run has winners of {', '.join(won)}" if won else "this run has no winner"


def measured_mean(evidence: Evidence, arm: str, name: str) -> float:
    """Return the mean of a measure over an arm's models, NaN if none has it."""
    return finite_mean(evidence.arms[arm].measures.get(name, ())) if arm in evidence.arms else math.nan


def finding(contrast: Comparison, label: str, family: int, *, unit: str = "", scale: float = 1.0) -> Finding:
    """Return a contrast as a `Finding`."""
    of = f"with {arm_title(contrast.a)} than with {arm_title(contrast.b)}"
    return Finding(f"{label}, {contrast.a} minus {contrast.b}", label, of, contrast, family, unit, scale)
