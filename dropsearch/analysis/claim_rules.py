"""Decision rules for claims about dropout: their inputs, and the sentences that state the results."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dropsearch.core.records import Answer, Claim, Comparison, Evidence, Interval, Summary, arm_title
from dropsearch.stats.comparisons import SIGNIFICANT, minimum_seeds, p_text
from dropsearch.stats.intervals import finite_mean

Side = Literal[-1, 1]


@dataclass(frozen=True)
class Rule:
    """A claim, expressed as a predicted difference."""

    name: str
    statement: str
    """The claim, as a statement that is true or false."""
    measure: str
    """Name of the deciding measure or comparison metric."""
    side: Side
    """Predicted sign of the difference, 1 or -1."""
    margin: float
    """Smallest difference of practical relevance, above 0, in the unit of the measure."""
    figure: str
    checked_by: tuple[str, Side] | None = None
    """Another measure and its better side; the claim does not hold if it is shown to be worse."""
    beside: str = ""
    """A further measure whose difference is reported but does not decide."""


EFFECTS = (
    Rule("overfitting", "Less overfitting with dropout", "gap_best", -1, 0.01, "gaps", ("val_loss_best", -1)),
    Rule(
        "coadaptation",
        "Less co-adaptation of hidden units with dropout",
        "correlation",
        -1,
        0.01,
        "coadaptation",
        ("knockout_area", 1),
    ),
    Rule(
        "robustness",
        "More robustness to noise with dropout",
        "noise_area",
        1,
        0.005,
        "robustness",
        beside="robustness_area",
    ),
)
"""Claims of a difference between a network with dropout and one without."""
ENSEMBLE = Rule(
    "ensemble", "Averaging over dropout's masks gains more than a temperature", "mc_minus_scaled", -1, 0.005, "ensemble"
)
"""A claim about one arm: averaging over masks beats temperature scaling of the same network."""
RATES = Rule("rates", "Typical rates do as well as those found", "test accuracy", 1, 0.005, "found")
"""Held if typical rates are no worse than found rates, and one of the two is better than no dropout."""
BATCHNORM = Rule("batchnorm", "Dropout + BatchNorm is better than either alone", "test accuracy", 1, 0.005, "shift")
"""Held if both together beat the better of the two."""
RULES = (*EFFECTS, ENSEMBLE, RATES, BATCHNORM)
"""All claims."""


@dataclass(frozen=True)
class Finding:
    """The number that decides a claim."""

    label: str
    """The measure and the arms."""
    subject: str
    """Subject of the sentence: `gap at the best epoch`."""
    of: str
    """End of the sentence, after the difference: `in dropout than in none`."""
    contrast: Comparison
    family: int
    """Number of contrasts that the p-value is adjusted for."""
    unit: str = ""
    scale: float = 1.0
    """Factor that converts numbers to `unit`."""


def answer(difference: Interval, p_holm: float, *, side: Side, margin: float) -> Answer:
    """Return whether a claim about the sign of a difference held.

    1. `undecided` without an interval.
    2. `held` if the whole interval lies on the claimed side of zero and p after Holm is below 0.05.
    3. `did not hold` if the whole interval lies below `margin` on the claimed side: the difference has the other sign
       or is irrelevant (equivalence, Schuirmann 1987, here with 95 % intervals).
    4. `undecided` otherwise.

    Args:
        side: Claimed sign of the difference, 1 or -1.
        margin: Smallest relevant difference, above 0.
    """
    low, high = claimed(difference, side)
    if not (math.isfinite(low) and math.isfinite(high)):
        return "undecided"
    if low > 0 and p_holm < SIGNIFICANT:
        return "held"
    return "did not hold" if high < margin else "undecided"


def answer_no_worse(difference: Interval, *, side: Side, margin: float) -> Answer:
    """Return whether a claim of non-inferiority held.

    1. `undecided` without an interval.
    2. `held` if the whole interval lies above ``-margin`` on the better side: any loss is irrelevant.
    3. `did not hold` if the whole interval lies on the worse side of zero.
    4. `undecided` otherwise.

    Args:
        side: Sign of a better difference, 1 or -1.
        margin: Smallest relevant difference, above 0.
    """
    low, high = claimed(difference, side)
    if not (math.isfinite(low) and math.isfinite(high)):
        return "undecided"
    if low > -margin:
        return "held"
    return "did not hold" if high < 0 else "undecided"


def claimed(difference: Interval, side: Side) -> tuple[float, float]:
    """Return the bounds of an interval, with the sign changed so that the claimed side is above zero."""
    return (difference.low, difference.high) if side > 0 else (-difference.high, -difference.low)


def settled(rule: Rule, found: Finding, *, no_worse: bool = False, doubt: str = "", more: str = "") -> Claim:
    """Return the claim that a rule decides from a finding, with its answer and reason.

    Args:
        doubt: A clause that explains why a claim is undecided although it would have held.
    """
    of = found.contrast
    result: Answer = "undecided"
    if not of.missing and no_worse:
        result = answer_no_worse(of.difference, side=rule.side, margin=rule.margin)
    elif not of.missing:
        result = answer(of.difference, of.p_holm, side=rule.side, margin=rule.margin)
    why = _why_no_worse(rule, found, result) if no_worse else _why(rule, found, result)
    if of.missing:
        why = f"seeds leave out the luck of {', '.join(of.missing)}"
    if result == "held" and doubt:
        result, why = "undecided", f"{why}, but {doubt}"
    sentence = describe_finding(found)
    return _claim(rule, found, result, f"{sentence[:1].upper()}{sentence[1:]}: {why}{f'; {more}' if more else ''}.")


def disagreeing(rule: Rule, found: Sequence[Finding]) -> Claim:
    """Return an undecided claim whose contrasts disagree, with the numbers of all contrasts."""
    reason = f"The contrasts disagree: {'; '.join(map(describe_finding, found))}."
    return _claim(rule, found[0], "undecided", reason)


def _claim(rule: Rule, found: Finding, result: Answer, reason: str) -> Claim:
    number = found.contrast.difference
    return Claim(rule.name, rule.statement, result, found.label, number, reason, rule.figure, found.unit, found.scale)


def unsettled(rule: Rule, label: str, reason: str, number: float = math.nan) -> Claim:
    """Return a claim that was not measured, with the reason; `number` is a value without an interval."""
    interval = Interval(number, math.nan, math.nan)
    return Claim(rule.name, rule.statement, "not measured", label, interval, reason, rule.figure)


def describe_finding(found: Finding) -> str:
    """Return a sentence with the number, its interval, p-value and number of seeds."""
    of, unit = found.contrast, f" {found.unit}" if found.unit else ""
    mean = of.difference.mean
    if not math.isfinite(mean):
        return f"{found.subject} has no number {found.of}"
    size = f"{abs(mean) * found.scale:.3g}{unit} {'higher' if mean > 0 else 'lower'}" if mean else "no different"
    interval = f"95 % interval {_bounds(found)}, " if math.isfinite(of.difference.low) else ""
    seeds = f"{len(of.differences)} seed{'' if len(of.differences) == 1 else 's'}"
    return f"{found.subject} is {size} {found.of} ({interval}p {p_text(of.p_holm)} after Holm, {seeds})"


def _bounds(found: Finding) -> str:
    """Return the ends of an interval as sizes, smallest first, with their sides of zero if they differ."""
    low, high = found.contrast.difference.low * found.scale, found.contrast.difference.high * found.scale
    if low < 0 < high:
        return f"{-low:.3g} lower to {high:.3g} higher"
    smallest, largest = sorted((abs(low), abs(high)))
    return f"{smallest:.3g} to {largest:.3g}"


def _why(rule: Rule, found: Finding, result: Answer) -> str:
    low, high = claimed(found.contrast.difference, rule.side)
    least = _amount(rule.margin, found)
    if result == "held":
        small = f", though below {least}, the smallest that would matter" if high < rule.margin else ""
        return f"the whole interval lies on the claimed side{small}"
    if result == "did not hold" and high < 0:
        return "the whole interval lies on the other side of what is claimed"
    if result == "did not hold":
        return f"an effect of {least}, the smallest that would matter, is ruled out"
    if not math.isfinite(low):
        return "there are too few seeds for an interval"
    if low > 0:
        return f"the interval lies on the claimed side, but the exact test cannot tell it from chance{_needed(found)}"
    return f"both no effect and one of {least} or more remain possible"


def _why_no_worse(rule: Rule, found: Finding, result: Answer) -> str:
    least = _amount(rule.margin, found)
    if result == "held":
        return f"a loss of {least}, the smallest that would matter, is ruled out"
    if result == "did not hold":
        return "the whole interval lies on the worse side"
    if not math.isfinite(found.contrast.difference.low):
        return "there are too few seeds for an interval"
    return f"both no loss and one of {least} or more remain possible"


def _needed(found: Finding) -> str:
    needed = minimum_seeds(max(found.family, 1))
    return f", which takes confirm.seeds={needed} or more" if len(found.contrast.differences) < needed else ""


def _amount(size: float, found: Finding) -> str:
    return f"{size * found.scale:.3g}{f' {found.unit}' if found.unit else ''}"


def winner_rates(summary: Summary, arm: str) -> Mapping[str, float]:
    """Return the rates of an arm's winner by site; empty without a winner or without dropout."""
    winner = summary.arms[arm].winner if arm in summary.arms else None
    return winner.results[0].spec.rates if winner and winner.results else {}


def drops(summary: Summary, arm: str) -> bool:
    """Return whether any rate of an arm's winner is above 0 where it has an effect."""
    return any(rate > 0 for site, rate in winner_rates(summary, arm).items() if site not in summary.without_effect)


def untested(summary: Summary, arms: Collection[str]) -> str:
    """Return a sentence that says that no rate drops anything, so dropout was not tested."""
    names = " and ".join(dict.fromkeys(map(arm_title, arms)))
    return f"Every rate of the winner of {names} is {nothing(summary, arms)}, so dropout was not tested."


def nothing(summary: Summary, arms: Iterable[str]) -> str:
    """Return what the rates are of arms that do not drop."""
    above = any(rate > 0 for arm in arms for rate in winner_rates(summary, arm).values())
    return "0, or has no effect" if above else "0"


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
