"""Published claims about dropout, tested with the numbers of a run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from dropsearch.analysis.claim_rules import (
    BATCHNORM,
    EFFECTS,
    ENSEMBLE,
    RATES,
    Finding,
    Rule,
    describe_finding,
    disagreeing,
    drops,
    finding,
    measured_mean,
    nothing,
    ran,
    settled,
    unsettled,
    untested,
    winner_rates,
)
from dropsearch.core.records import Claim, Comparison, Evidence, Interval, Summary, arm_title
from dropsearch.core.records.arms import TYPICAL_BANDS
from dropsearch.stats.comparisons import shown_side
from dropsearch.stats.intervals import finite_mean
from dropsearch.stats.paired_tests import holm, paired_difference, wilcoxon_exact

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
        return unsettled(rule, what.label, untested(summary, [a for a, _ in present]))
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
        return unsettled(ENSEMBLE, what.label, untested(summary, present))
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


RELATIVE_MARGIN = 0.01
"""Smallest relevant difference of metrics other than accuracy, as a share of the reference's score."""
KINDS = tuple(kind for kind, (low, high) in TYPICAL_BANDS.items() if low < high)
"""Kinds of sites with a typical range instead of one typical rate."""


def rates(summary: Summary) -> Claim:
    """Return the claim about typical rates: an arm with typical rates is no worse than one with found rates.

    The claim can hold only if dropout at typical or found rates is shown to be better than none. Without the arm
    `typical`, it is not measured, and the number is the share of found rates that are typical.
    """
    arm = next((name for name in ("dropout", "both") if _is_searched(summary, name)), None)
    label = "share of the rates found that are typical"
    if arm is None:
        return unsettled(RATES, label, f"It needs an arm with searched rates: {ran(summary)}.")
    kinds = {site.name: site.kind for site in summary.sites}
    found = {site: rate for site, rate in winner_rates(summary, arm).items() if kinds.get(site) in KINDS}
    if not found:
        return unsettled(RATES, label, f"No site is of a kind with a typical range ({', '.join(KINDS)}).")
    outside = {site: TYPICAL_BANDS[kinds[site]] for site, rate in found.items() if not _is_typical(rate, kinds[site])}
    none = f"every rate found in {arm_title(arm)} is {nothing(summary, [arm])}"
    placed = _placed(arm, found, outside) if drops(summary, arm) else none
    contrast = next((c for c in summary.contrasts if (c.a, c.b) == ("dropout", "typical") and c.differences), None)
    if contrast is None:
        takes = (
            f"{placed[:1].upper()}{placed[1:]}; whether typical rates do as well needs the arms dropout and typical."
        )
        return unsettled(RATES, f"{label}, {arm}", takes, 1 - len(outside) / len(found))
    rule = _of_judge(RATES, summary, "dropout")
    return settled(rule, _finding(_turned(contrast), summary), no_worse=True, doubt=_insensitive(summary), more=placed)


def _insensitive(summary: Summary) -> str:
    """Return why the comparison of typical and found rates is not informative, as a clause, or an empty string.

    If dropout makes no difference, all rates do equally well. One of the two must therefore be shown to be better than
    no dropout (assay sensitivity, ICH E10 2000).
    """
    if "none" not in summary.arms or summary.arms["none"].winner is None:
        return "whether rates matter here at all needs the arm none (plain)"
    better = 1 if summary.comparison_metric.higher_is_better else -1
    against = [c for c in summary.contrasts if c.b == "none" and c.a in ("dropout", "typical")]
    if any(shown_side(c) == better for c in against):
        return ""
    return "neither typical rates nor those found are shown to be better than no dropout: rates may not matter here"


def _is_searched(summary: Summary, arm: str) -> bool:
    return arm in summary.arms and summary.arms[arm].arm.dropout == "search" and bool(winner_rates(summary, arm))


def _is_typical(rate: float, kind: str) -> bool:
    low, high = TYPICAL_BANDS[kind]
    return low <= round(rate, 2) <= high  # rounded as displayed: 0.20 is within 0.1 to 0.2


def _placed(arm: str, found: Mapping[str, float], outside: Mapping[str, tuple[float, float]]) -> str:
    inside = f"of the rates found in {arm_title(arm)} {len(found) - len(outside)} of {len(found)} are typical"
    each = [f"{site} {found[site]:.2f} (typical {low:g} to {high:g})" for site, (low, high) in outside.items()]
    return f"{inside}, but not {', '.join(each)}" if each else inside


def batchnorm(evidence: Evidence, summary: Summary) -> Claim:
    """Return the claim about dropout with BatchNorm: both together beat the better of the two.

    The better one is chosen by validation loss, since the test set must not make choices.
    """
    label = f"{summary.comparison_metric.label}, both minus the better of dropout and batchnorm"
    single = {name: summary.arms[name].winner for name in ("dropout", "batchnorm") if name in summary.arms}
    losses = {name: winner.mean_val_loss for name, winner in single.items() if winner}
    contrasts = {c.b: c for c in summary.contrasts if c.a == "both" and c.differences}
    if len(losses) < 2 or not losses.keys() <= contrasts.keys():
        return unsettled(
            BATCHNORM, label, f"It needs results of dropout + BatchNorm, dropout and BatchNorm: {ran(summary)}."
        )
    if not drops(summary, "both"):
        return unsettled(BATCHNORM, label, untested(summary, ["both"]))
    better = min(losses, key=losses.__getitem__)
    rule, shift = _of_judge(BATCHNORM, summary, better), _shift(evidence)
    rule = rule if shift else dataclasses.replace(rule, figure="differences")
    return settled(rule, _finding(contrasts[better], summary), more=shift)


def _shift(evidence: Evidence) -> str:
    """Return a clause about the variance shift of dropout before BatchNorm; empty if not measured."""
    shift, gain = (measured_mean(evidence, "both", name) for name in ("shift_mean", "recalibration_gain"))
    if not (math.isfinite(shift) and math.isfinite(gain)):
        return ""
    alone = measured_mean(evidence, "batchnorm", "recalibration_gain")
    lag = f", in BatchNorm without dropout by {_points(alone)}" if math.isfinite(alone) else ""
    return (
        f"with dropout off BatchNorm meets {shift:.2f} times the variance that it meets with dropout on, and measuring "
        f"its statistics again changes accuracy by {_points(gain)} points{lag}"
    )


def _points(share: float) -> str:
    """Return a difference of shares in points; one that rounds to zero has no sign."""
    text = f"{100 * share:+.2f}"
    return text if float(text) else "0.00"


def _of_judge(rule: Rule, summary: Summary, reference: str) -> Rule:
    """Return a rule with the better side and the margin of the run's comparison metric."""
    comparison_metric = summary.comparison_metric
    margin = (
        rule.margin
        if comparison_metric.percent
        else RELATIVE_MARGIN * abs(finite_mean(summary.arms[reference].scores(comparison_metric)))
    )
    return dataclasses.replace(rule, side=1 if comparison_metric.higher_is_better else -1, margin=margin)


def _finding(contrast: Comparison, summary: Summary) -> Finding:
    comparison_metric, family = summary.comparison_metric, len(summary.contrasts)
    if comparison_metric.percent:
        return finding(contrast, comparison_metric.label, family, unit="points", scale=100)
    return finding(contrast, comparison_metric.label, family)


def _turned(contrast: Comparison) -> Comparison:
    """Return the contrast with its arms swapped."""
    of = contrast.difference
    return dataclasses.replace(
        contrast,
        a=contrast.b,
        b=contrast.a,
        differences=tuple(-each for each in contrast.differences),
        difference=Interval(-of.mean, -of.high, -of.low),
        effect=1 - contrast.effect,
    )
