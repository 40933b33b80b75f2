"""Tables of measures on the winners, and of claims about dropout."""

from __future__ import annotations

import math

from dropsearch.core.records import Claim, Evidence, Interval, Summary
from dropsearch.report import measured_values
from dropsearch.report.numbers import EMPTY, signed, unsigned_zero, with_unit
from dropsearch.report.tables.table import CONTRAST, Table, contrast_cells
from dropsearch.report.text.contrast_phrases import of_different_models

ANSWERS = {"held": "yes", "did not hold": "no"}
"""Displayed words for answers; other answers are displayed unchanged."""
OVER_SEEDS = (*CONTRAST[:-1], "consistent\nover seeds")
"""Columns of a contrast over seeds only, which is never called shown."""


def claim_answer(claim: Claim) -> str:
    """Return the displayed answer to a claim."""
    return ANSWERS.get(claim.answer, claim.answer)


def claims_table(summary: Summary) -> Table:
    """Return a table with one row per claim that has a number: answer, deciding number, and its arms."""
    columns = ("claim", "answer", "measure", "arms", "number (95 % interval)")
    claims = summary.evidence.claims if summary.evidence else ()
    rows = tuple(_claim_row(claim) for claim in claims if claim_number(claim))
    return Table("Claims about dropout", columns, rows, left=("claim", "answer", "measure", "arms"))


def _claim_row(claim: Claim) -> tuple[str, str, str, str, str]:
    measure, _, arms = claim.measure.rpartition(", ")
    return claim.statement, claim_answer(claim), measure, arms, claim_number(claim)


def evidence_table(summary: Summary, *, intervals: bool = False) -> Table:
    """Return a table with one row per measure and one column per arm: the mean over seeds, optionally with interval."""
    evidence = summary.evidence
    arms = [arm for arm in summary.arms if evidence and arm in evidence.arms]
    names = measured_values.measures(evidence) if evidence else []
    rows = tuple(_row(summary, evidence, name, arms, intervals) for name in names if evidence)
    how = "mean over seeds (95 % interval)" if intervals else "mean over seeds"
    return Table(f"Measured on each arm's winner: {how}", ("measure", *arms), rows, left=("measure",))


def contrasts_table(summary: Summary) -> Table:
    """Return a table with one row per measure and contrast: the paired difference between two arms' winners."""
    evidence = summary.evidence
    rows = (
        (
            _label(evidence, found.metric),
            f"{found.a} - {found.b}",
            *contrast_cells(found, signed),
        )
        for found in of_different_models(summary, evidence.contrasts if evidence else ())
        if evidence
    )
    columns = ("measure", "contrast", *OVER_SEEDS)
    return Table("Paired differences in what was measured", columns, tuple(rows), left=("measure", "contrast"))


def variation_tables(summary: Summary) -> list[Table]:
    """One table a retraining, one row a variation: the monitored metric with the change, minus the winner's own."""
    monitor = summary.monitor
    better = "more" if monitor.mode == "max" else "less"
    columns = ("change", "arm", *OVER_SEEDS)
    tables = []
    for title, by_arm in (summary.evidence.variations if summary.evidence else {}).items():
        rows = tuple(
            (variation.name, arm, *contrast_cells(variation.comparison, signed))
            for arm, variations in by_arm.items()
            for variation in variations
        )
        head = f"{title.capitalize()}: {monitor.name} with the change, minus the winner's own ({better} is better)"
        tables.append(Table(head, columns, rows, left=("change", "arm")))
    return tables


def with_interval(interval: Interval, *, signed: bool = False) -> str:
    """Return a mean and its interval to three digits, or the sign for a missing value."""
    if not math.isfinite(interval.mean):
        return EMPTY
    if not math.isfinite(interval.low):
        return _number(interval.mean, signed)
    return f"{_number(interval.mean, signed)} ({_number(interval.low, signed)} to {_number(interval.high, signed)})"


def claim_number(claim: Claim) -> str:
    """Return the deciding number of a claim with its interval and unit; empty if there is none."""
    if not math.isfinite(claim.number.mean):
        return ""
    scaled = Interval(*(claim.scale * each for each in (claim.number.mean, claim.number.low, claim.number.high)))
    is_difference = claim.answer != "not measured"  # without one, the number is a share
    return f"{with_interval(scaled, signed=is_difference)}{f' {claim.unit}' if claim.unit else ''}"


def _row(summary: Summary, evidence: Evidence, name: str, arms: list[str], intervals: bool) -> tuple[str, ...]:
    found = measured_values.means(summary, name)
    nothing = Interval(math.nan, math.nan, math.nan)
    cells = [found.get(arm, nothing) for arm in arms]
    return _label(evidence, name), *(
        with_interval(cell) if intervals else _number(cell.mean, signed=False) for cell in cells
    )


def _label(evidence: Evidence, name: str) -> str:
    quantity = evidence.quantity(name)
    return with_unit(quantity.label, quantity.unit)


def _number(value: float, signed: bool) -> str:
    if not math.isfinite(value):
        return EMPTY
    return unsigned_zero(f"{value:{'+' if signed else ''}.3g}")
