"""Claims decided by the comparison metric: typical rates, and dropout combined with BatchNorm."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from dropsearch.analysis.claim_rules import (
    BATCHNORM,
    RATES,
    Finding,
    Rule,
    drops,
    finding,
    measured_mean,
    ran,
    settled,
    unsettled,
    untested,
    winner_rates,
)
from dropsearch.core.records import Claim, Comparison, Evidence, Interval, Summary, arm_title
from dropsearch.core.records.arms import TYPICAL_BANDS
from dropsearch.stats.intervals import finite_mean
from dropsearch.stats.shown import shown_side

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
    placed = _placed(arm, found, outside) if drops(summary, arm) else f"every rate found in {arm_title(arm)} is 0"
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
        return unsettled(BATCHNORM, label, untested(["both"]))
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
