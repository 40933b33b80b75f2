"""What is claimed of dropout, and what the numbers of a run say of it."""

from __future__ import annotations

import math

from dropsearch.evidence.grounds import drops, finding, finite_mean, measured_mean, quantity, ran, untested
from dropsearch.evidence.intervals import paired_difference
from dropsearch.evidence.judged import batchnorm, rates
from dropsearch.evidence.rules import EFFECTS, ENSEMBLE, Finding, Rule, settled, unsettled
from dropsearch.evidence.significance import holm, wilcoxon_exact
from dropsearch.records import Claim, Evidence, Summary

WITH_AND_WITHOUT = (("dropout", "none"), ("both", "batchnorm"))
"""The contrasts that show what dropout does. The first that was measured, and in which any rate is above 0, decides."""
OF_ONE_ARM = ("dropout", "both", "dropout_shared", "textbook")
"""The arms that show what one network with dropout does; the first that was measured with a rate above 0 decides."""


def claims(evidence: Evidence, summary: Summary) -> tuple[Claim, ...]:
    """Return what this run says of each claim, in the order of `rules.RULES`.

    The answer follows from a number, its 95 % interval and its p-value by the rules of `dropsearch.evidence.rules`, and
    from nothing else. What was not measured, or not tested since every rate was 0, is not shown.
    """
    return (
        *(_effect(rule, evidence, summary) for rule in EFFECTS),
        _ensemble(evidence, summary),
        rates(summary),
        batchnorm(evidence, summary),
    )


def _effect(rule: Rule, evidence: Evidence, summary: Summary) -> Claim:
    family = [c for c in evidence.contrasts if c.metric == rule.measure]
    known, what = {(c.a, c.b): c for c in family if c.differences}, quantity(evidence, rule.measure)
    present = [known[pair] for pair in WITH_AND_WITHOUT if pair in known]
    if not present:
        takes = f"It takes the {what.label} of dropout and none, or of both and batchnorm: {ran(summary)}."
        return unsettled(rule, what.label, takes)
    tested = [c for c in present if drops(summary, c.a) or drops(summary, c.b)]
    if not tested:
        return unsettled(rule, what.label, untested(c.a for c in present))
    return settled(rule, finding(tested[0], what.label, len(family), unit=what.unit))


def _ensemble(evidence: Evidence, summary: Summary) -> Claim:
    what = quantity(evidence, ENSEMBLE.measure)
    values = {
        name: [value for value in evidence.arms[name].measures.get(ENSEMBLE.measure, ()) if math.isfinite(value)]
        for name in OF_ONE_ARM
        if name in evidence.arms
    }
    present = {name: found for name, found in values.items() if found}
    if not present:
        return unsettled(ENSEMBLE, what.label, f"It takes the samples of an arm with dropout: {ran(summary)}.")
    tested = {name: found for name, found in present.items() if drops(summary, name)}
    if not tested:
        return unsettled(ENSEMBLE, what.label, untested(present))
    arm, found = next(iter(tested.items()))
    adjusted = holm([wilcoxon_exact(each) for each in tested.values()])
    number = Finding(
        label=f"{what.label}, {arm}",
        subject=f"the loss of {arm} averaged over masks",
        of="than that of the same networks with one temperature each",
        difference=paired_difference(found, [0.0] * len(found)),
        p_holm=adjusted[0],
        seeds=len(found),
        family=len(tested),
        unit="nats",
    )
    return settled(ENSEMBLE, number, more=_beside(evidence, arm))


def _beside(evidence: Evidence, arm: str) -> str:
    """What averaging gives by itself, and what an ensemble of retrainings gives, as clauses."""
    told = []
    gain = measured_mean(evidence, arm, "mc_nll_gain")
    if math.isfinite(gain):
        change = "lowers" if gain >= 0 else "raises"
        told.append(f"without any temperature averaging {change} the loss by {abs(gain):.3g} nats")
    members = evidence.arms[arm].series.get("nll_by_members")
    if members and members.x:
        together, averaged = finite_mean(row[-1] for row in members.values), measured_mean(evidence, arm, "mc_nll")
        told.append(
            f"{members.x[-1]:g} retrainings together have a loss of {together:.3g}, one over masks {averaged:.3g}"
        )
    return ", and ".join(told)
