"""The tables of what was measured on the winners, and of the claims about dropout."""

from __future__ import annotations

import math

from dropsearch.core.records import Claim, Evidence, Interval, Summary
from dropsearch.report import measured_values
from dropsearch.report.tables.table import CONTRAST, Table, contrast_cells
from dropsearch.report.text.numbers import EMPTY, signed

ANSWERS = {"held": "yes", "did not hold": "no"}
"""How a claim is answered for people; the other answers are called what they are."""
OVER_SEEDS = (*CONTRAST[:-1], "consistent\nover seeds")
"""The columns of a contrast whose interval does not cover the choice of examples: it is never called shown."""


def claim_answer(claim: Claim) -> str:
    """Return the answer to a claim, in words for people."""
    return ANSWERS.get(claim.answer, claim.answer)


def claims_table(summary: Summary) -> Table:
    """One row a claim: what this run says of it, the number that decides, and the arms whose number it is."""
    columns = ("claim", "answer", "measure", "arms", "number (95 % interval)")
    rows = tuple(map(_claim_row, summary.evidence.claims if summary.evidence else ()))
    return Table("Claims about dropout", columns, rows, left=("claim", "answer", "measure", "arms"))


def _claim_row(claim: Claim) -> tuple[str, str, str, str, str]:
    measure, _, arms = claim.measure.rpartition(", ")
    if not measure:
        measure, arms = arms, EMPTY
    return claim.statement, claim_answer(claim), measure, arms, claim_number(claim) or EMPTY


def evidence_table(summary: Summary, *, intervals: bool = False) -> Table:
    """One row a measure, one column an arm: the mean over seeds, with its interval where that is asked for."""
    evidence = summary.evidence
    arms = [arm for arm in summary.arms if evidence and arm in evidence.arms]
    names = measured_values.measures(evidence) if evidence else []
    rows = tuple(_row(summary, evidence, name, arms, intervals) for name in names if evidence)
    how = "mean over seeds (95 % interval)" if intervals else "mean over seeds"
    return Table(f"Measured on each arm's winner: {how}", ("measure", *arms), rows, left=("measure",))


def contrasts_table(summary: Summary) -> Table:
    """One row a planned contrast of each measure: the paired difference between two arms' winners."""
    evidence = summary.evidence
    rows = (
        (
            measured_values.titled(measured_values.quantity(evidence, found.metric)),
            f"{found.a} - {found.b}",
            *contrast_cells(found, lambda value: _number(value, signed=True)),
        )
        for found in (evidence.contrasts if evidence else ())
        if evidence
    )
    columns = ("measure", "contrast", *OVER_SEEDS)
    return Table("Paired differences in what was measured", columns, tuple(rows), left=("measure", "contrast"))


def single_sites_table(summary: Summary) -> Table:
    """One row a change of one site's rate: what is monitored of the winner with it, minus the winner's own."""
    varied = summary.evidence.single_sites if summary.evidence else {}
    columns = ("site = rate", "arm", *OVER_SEEDS)
    rows = tuple(
        (each.name, arm, *contrast_cells(each.comparison, signed)) for arm, found in varied.items() for each in found
    )
    better = "more" if summary.monitor.mode == "max" else "less"
    title = f"Single sites: {summary.monitor.name} with one rate changed, minus the winner's own ({better} is better)"
    return Table(title, columns, rows, left=("site = rate", "arm"))


def with_interval(interval: Interval, *, signed: bool = False) -> str:
    """A mean and its interval, or its lack, to three digits."""
    if not math.isfinite(interval.mean):
        return EMPTY
    if not math.isfinite(interval.low):
        return _number(interval.mean, signed)
    return f"{_number(interval.mean, signed)} ({_number(interval.low, signed)} to {_number(interval.high, signed)})"


def claim_number(claim: Claim) -> str:
    """The number that decides a claim, with its interval, in its unit; empty where there is none."""
    if not math.isfinite(claim.number.mean):
        return ""
    told = Interval(*(claim.scale * each for each in (claim.number.mean, claim.number.low, claim.number.high)))
    return f"{with_interval(told, signed=True)}{f' {claim.unit}' if claim.unit else ''}"


def _row(summary: Summary, evidence: Evidence, name: str, arms: list[str], intervals: bool) -> tuple[str, ...]:
    found = measured_values.means(summary, name)
    nothing = Interval(math.nan, math.nan, math.nan)
    cells = [found.get(arm, nothing) for arm in arms]
    label = measured_values.titled(measured_values.quantity(evidence, name))
    return label, *(with_interval(cell) if intervals else _number(cell.mean, signed=False) for cell in cells)


def _number(value: float, signed: bool) -> str:
    if not math.isfinite(value):
        return EMPTY
    return f"{value:+.3g}" if signed else f"{value:.3g}"
