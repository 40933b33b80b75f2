"""The rules by which a claim about dropout held, did not hold, or is undecided, and the words that follow from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dropsearch.core.records import Answer, Claim, Interval
from dropsearch.stats.shown import SIGNIFICANT, minimum_seeds

Side = Literal[-1, 1]


@dataclass(frozen=True)
class Rule:
    """A claim as a difference that it foretells."""

    name: str
    statement: str
    """The claim, as a clause that "yes" or "no" answers."""
    measure: str
    """What decides: the name of a measure, or what arms are judged by."""
    side: Side
    """Whether the claim foretells a difference above (1) or below (-1) zero."""
    margin: float
    """The least difference that would matter in practice, in the unit of the measure, above 0."""
    figure: str
    checked_by: tuple[str, Side] | None = None
    """Another measure and its good side: the claim does not hold where that is shown to be on the bad one."""
    beside: str = ""
    """A further measure whose difference is told with the claim's own, and decides nothing."""


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
"""Of one arm: averaging over masks is to beat one temperature on the same network."""
RATES = Rule("rates", "Typical rates do as well as those found", "test accuracy", 1, 0.005, "found")
"""Held where the typical rates are no worse than those that the search found, and either are better than none."""
BATCHNORM = Rule("batchnorm", "Dropout + BatchNorm is better than either alone", "test accuracy", 1, 0.005, "shift")
"""Held where both together beat the better of the two."""
RULES = (*EFFECTS, ENSEMBLE, RATES, BATCHNORM)
"""All claims, with what each foretells and the least difference that would matter."""


@dataclass(frozen=True)
class Finding:
    """The number that decides a claim."""

    label: str
    """What was measured, and of which arms."""
    subject: str
    """What the sentence begins with: `gap at the best epoch`."""
    of: str
    """Behind the difference in the sentence: `in dropout than in none`."""
    difference: Interval
    p_holm: float
    seeds: int
    family: int
    """How many contrasts the p-value was adjusted for."""
    unit: str = ""
    scale: float = 1.0
    """What numbers are multiplied by to be told in `unit`."""
    missing: tuple[str, ...] = ()
    """Luck that interval and p leave out: the claim is undecided then."""


def answer(difference: Interval, p_holm: float, *, side: Side, margin: float) -> Answer:
    """Say whether a claim that foretells a difference on one side of zero held.

    1. `undecided` where there is no interval.
    2. `held` where the whole interval lies on the claimed side of zero and p after Holm is below 0.05.
    3. `did not hold` where the whole interval lies below `margin` on the claimed side: the difference is on the other
       side, or too small to matter (equivalence, Schuirmann 1987, here with 95 % intervals).
    4. Else `undecided`.

    Args:
        difference: With its 95 % interval.
        p_holm: Of the paired test, adjusted.
        side: 1 where the claim foretells a difference above zero, -1 below.
        margin: The least difference that would matter, above 0.
    """
    low, high = claimed(difference, side)
    if not (math.isfinite(low) and math.isfinite(high)):
        return "undecided"
    if low > 0 and p_holm < SIGNIFICANT:
        return "held"
    return "did not hold" if high < margin else "undecided"


def answer_no_worse(difference: Interval, *, side: Side, margin: float) -> Answer:
    """Say whether a claim held that one thing is no worse than another (non-inferiority).

    1. `undecided` where there is no interval.
    2. `held` where the whole interval lies above ``-margin`` on the better side: what is lost, if anything, is too
       little to matter.
    3. `did not hold` where the whole interval lies on the worse side of zero.
    4. Else `undecided`.

    Args:
        difference: With its 95 % interval.
        side: 1 where a difference above zero is the better, -1 below.
        margin: The least difference that would matter, above 0.
    """
    low, high = claimed(difference, side)
    if not (math.isfinite(low) and math.isfinite(high)):
        return "undecided"
    if low > -margin:
        return "held"
    return "did not hold" if high < 0 else "undecided"


def claimed(difference: Interval, side: Side) -> tuple[float, float]:
    """Return the bounds of an interval, turned so that what is claimed lies above zero."""
    return (difference.low, difference.high) if side > 0 else (-difference.high, -difference.low)


def settled(rule: Rule, found: Finding, *, no_worse: bool = False, doubt: str = "", more: str = "") -> Claim:
    """Return a claim with the answer that follows from a number, and the sentence that gives the numbers.

    Args:
        rule: What decides.
        found: The number.
        no_worse: Whether the claim is one of being no worse, and not of being better.
        doubt: Why a claim that would have held is undecided all the same, as a clause.
        more: What else is to be told, as a clause.
    """
    said: Answer = "undecided"
    if not found.missing and no_worse:
        said = answer_no_worse(found.difference, side=rule.side, margin=rule.margin)
    elif not found.missing:
        said = answer(found.difference, found.p_holm, side=rule.side, margin=rule.margin)
    why = _why_no_worse(rule, found, said) if no_worse else _why(rule, found, said)
    if found.missing:
        why = f"seeds leave out the luck of {', '.join(found.missing)}"
    if said == "held" and doubt:
        said, why = "undecided", f"{why}, but {doubt}"
    reason = f"{_capital(describe_finding(found))}: {why}{f'; {more}' if more else ''}."
    return Claim(
        rule.name, rule.statement, said, found.label, found.difference, reason, rule.figure, found.unit, found.scale
    )


def disagreeing(rule: Rule, found: Sequence[Finding]) -> Claim:
    """Return a claim that contrasts answer differently, as undecided, with the numbers of all of them."""
    reason, first = f"The contrasts disagree: {'; '.join(map(describe_finding, found))}.", found[0]
    return Claim(
        rule.name,
        rule.statement,
        "undecided",
        first.label,
        first.difference,
        reason,
        rule.figure,
        first.unit,
        first.scale,
    )


def unsettled(rule: Rule, label: str, reason: str, number: float = math.nan) -> Claim:
    """Return a claim that this run says nothing of, and why; `number` is what there is without an interval."""
    interval = Interval(number, math.nan, math.nan)
    return Claim(rule.name, rule.statement, "not measured", label, interval, reason, rule.figure)


def describe_finding(found: Finding) -> str:
    """Return the number, its interval and what it rests on, in words."""
    mean, unit = found.difference.mean, f" {found.unit}" if found.unit else ""
    if not math.isfinite(mean):
        return f"{found.subject} has no number {found.of}"
    size = f"{abs(mean) * found.scale:.3g}{unit} {'higher' if mean > 0 else 'lower'}" if mean else "no different"
    bounds = f"{found.difference.low * found.scale:+.3g} to {found.difference.high * found.scale:+.3g}"
    interval = f"95 % interval {bounds}, " if math.isfinite(found.difference.low) else ""
    return f"{found.subject} is {size} {found.of} ({interval}p {found.p_holm:.2g} after Holm, {_seeds(found)})"


def _why(rule: Rule, found: Finding, said: Answer) -> str:
    low, high = claimed(found.difference, rule.side)
    least = _amount(rule.margin, found)
    if said == "held":
        small = f", though below {least}, the least that would matter" if high < rule.margin else ""
        return f"the whole interval lies on the claimed side{small}"
    if said == "did not hold" and high < 0:
        return "the whole interval lies on the other side of what is claimed"
    if said == "did not hold":
        return f"an effect of {least}, the least that would matter, is ruled out"
    if not math.isfinite(low):
        return "so few seeds give no interval"
    if low > 0:
        return f"the interval lies on the claimed side, but the exact test cannot tell it from chance{_needed(found)}"
    return f"both no effect and one of {least} or more remain possible"


def _why_no_worse(rule: Rule, found: Finding, said: Answer) -> str:
    least = _amount(rule.margin, found)
    if said == "held":
        return f"a loss of {least}, the least that would matter, is ruled out"
    if said == "did not hold":
        return "the whole interval lies on the worse side"
    if not math.isfinite(found.difference.low):
        return "so few seeds give no interval"
    return f"both no loss and one of {least} or more remain possible"


def _needed(found: Finding) -> str:
    needed = minimum_seeds(max(found.family, 1))
    return f", which takes confirm.seeds={needed} or more" if found.seeds < needed else ""


def _amount(size: float, found: Finding) -> str:
    return f"{size * found.scale:.3g}{f' {found.unit}' if found.unit else ''}"


def _seeds(found: Finding) -> str:
    return f"{found.seeds} seed{'' if found.seeds == 1 else 's'}"


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
