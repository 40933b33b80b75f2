"""Published claims about dropout, tested with the numbers of a run."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

from dropsearch.analysis.claim_rules import (
    EFFECTS,
    ENSEMBLE,
    Finding,
    Rule,
    describe_finding,
    disagreeing,
    drops,
    finding,
    measured_mean,
    ran,
    settled,
    unsettled,
    untested,
)
from dropsearch.analysis.score_claims import batchnorm, rates
from dropsearch.core.records import Claim, Comparison, Evidence, Summary, arm_title
from dropsearch.stats.intervals import finite_mean
from dropsearch.stats.paired_tests import holm, paired_difference, wilcoxon_exact
from dropsearch.stats.shown import shown_side

WITH_AND_WITHOUT = (("dropout", "none"), ("both", "batchnorm"))
"""Contrasts with and without dropout. The first measured one with a rate above 0 decides, unless another one
significantly points the other way."""
OF_ONE_ARM = ("dropout", "both", "dropout_shared", "typical")
"""Arms with dropout, for claims about one arm; the first measured one with a rate above 0 decides."""


def claims(evidence: Evidence, summary: Summary) -> tuple[Claim, ...]:
    """Return the result of each claim in this run, in the order of `claim_rules.RULES`.

    The answer depends only on a number, its 95 % interval and its p-value, by the rules of
    `dropsearch.analysis.claim_rules`. A claim is not measured if a number is missing or every rate is 0.
    """
    return (
        *(_effect(rule, evidence, summary) for rule in EFFECTS),
        _ensemble(evidence, summary),
        rates(summary),
        batchnorm(evidence, summary),
    )


def _effect(rule: Rule, evidence: Evidence, summary: Summary) -> Claim:
    present, what = _with_and_without(evidence, rule.measure), evidence.quantity(rule.measure)
    if not present:
        needed = f"the {what.label} of dropout and plain, or of dropout + BatchNorm and BatchNorm"
        return unsettled(rule, what.label, _lacking(summary, WITH_AND_WITHOUT, needed))
    tested = [pair for pair in present if any(drops(summary, arm) for arm in pair)]
    if not tested:
        return unsettled(rule, what.label, untested(a for a, _ in present))
    found = [present[pair] for pair in tested]
    if {shown_side(each.contrast) for each in found} >= {-1, 1}:
        return disagreeing(rule, found)
    beside = _with_and_without(evidence, rule.beside)
    others = [*found[1:], *(beside[pair] for pair in tested if pair in beside)]
    return settled(rule, found[0], doubt=_doubt(rule, evidence, tested), more="; ".join(map(describe_finding, others)))


def _lacking(summary: Summary, sets: Iterable[Collection[str]], needed: str) -> str:
    """Return why there is no number: no arms of any of `sets` ran, or nothing was measured on them."""
    won = {name for name, outcome in summary.arms.items() if outcome.winner}
    if any(won.issuperset(arms) for arms in sets):
        return f"It needs {needed}, which could not be measured on these models: the caveats say why."
    return f"It needs {needed}: {ran(summary)}."


def _with_and_without(evidence: Evidence, measure: str) -> dict[tuple[str, str], Finding]:
    """Return the measured contrasts of a measure with and without dropout."""
    family, what = [c for c in evidence.contrasts if c.metric == measure], evidence.quantity(measure)
    known = {(c.a, c.b): finding(c, what.label, len(family), unit=what.unit) for c in family if c.differences}
    return {pair: known[pair] for pair in WITH_AND_WITHOUT if pair in known}


def _doubt(rule: Rule, evidence: Evidence, tested: Sequence[tuple[str, str]]) -> str:
    """Return contradicting evidence for a claim that its own number supports, or an empty string."""
    if rule.checked_by is None:
        return ""
    measure, side = rule.checked_by
    known = _with_and_without(evidence, measure)
    found = [known[pair] for pair in tested if pair in known]
    return "; ".join(f"the {describe_finding(each)}" for each in found if shown_side(each.contrast) == -side)


def _ensemble(evidence: Evidence, summary: Summary) -> Claim:
    what = evidence.quantity(ENSEMBLE.measure)
    values = {
        name: [value for value in evidence.arms[name].measures.get(ENSEMBLE.measure, ()) if math.isfinite(value)]
        for name in OF_ONE_ARM
        if name in evidence.arms
    }
    present = {name: found for name, found in values.items() if found}
    if not present:
        needed = "the samples of an arm with dropout"
        return unsettled(ENSEMBLE, what.label, _lacking(summary, [(arm,) for arm in OF_ONE_ARM], needed))
    tested = {name: found for name, found in present.items() if drops(summary, name)}
    if not tested:
        return unsettled(ENSEMBLE, what.label, untested(present))
    arm, found = next(iter(tested.items()))
    p_values = [wilcoxon_exact(each) for each in tested.values()]
    contrast = Comparison(
        arm,
        arm,
        ENSEMBLE.measure,
        tuple(found),
        paired_difference(found, [0.0] * len(found)),
        p_values[0],
        holm(p_values)[0],
        missing=summary.fixed_luck,
    )
    number = Finding(
        label=f"{what.label}, {arm}",
        subject=f"the loss of {arm_title(arm)} averaged over masks",
        of="than that of the same networks with one temperature each",
        contrast=contrast,
        family=len(tested),
        unit="nats",
    )
    return settled(ENSEMBLE, number, more=_beside(evidence, arm))


def _beside(evidence: Evidence, arm: str) -> str:
    """Return clauses about averaging without temperature, and about an ensemble of retrainings."""
    clauses = []
    gain = measured_mean(evidence, arm, "mc_nll_gain")
    if math.isfinite(gain):
        change = "lowers" if gain >= 0 else "raises"
        clauses.append(f"without any temperature averaging {change} the loss by {abs(gain):.3g} nats")
    both = [measured_mean(evidence, arm, name) for name in ("mc_scaled_nll", "scaled_nll")]
    if all(map(math.isfinite, both)):
        clauses.append(f"with its own temperature the average has a loss of {both[0]:.3g}, the network {both[1]:.3g}")
    members = evidence.arms[arm].series.get("nll_by_members")
    if members and members.x:
        together, averaged = finite_mean(row[-1] for row in members.values), measured_mean(evidence, arm, "mc_nll")
        clauses.append(
            f"{members.x[-1]:g} retrainings together have a loss of {together:.3g}, one over masks {averaged:.3g}"
        )
    return ", and ".join(clauses)
