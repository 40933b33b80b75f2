"""The verdict: two sentences of plain words that the numbers support."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dropsearch.core.records import ArmOutcome, Comparison, ComparisonMetric, Summary
from dropsearch.report import findings
from dropsearch.report.text.numbers import shorten
from dropsearch.report.text.score_scale import Scale, judged, leader
from dropsearch.stats.means import minimum_seeds


def verdict(summary: Summary) -> str:
    """Say which arm is best on test accuracy, whether that can be told from the others, and how sure it is.

    The rules, first match wins:

    1. No trial was completed: nothing can be said; the commonest reason follows.
    2. No arm has a test score: none is called best; who leads on validation loss follows.
    3. One arm has test scores: its accuracy, and that there is nothing to compare it with.
    4. The arm with the greatest mean test accuracy *beats* another where a planned contrast of the two has a
       Holm-adjusted p below 0.05 and a 95 % interval without zero. It *is best* only where it beats every
       other tested arm. Where it beats none, "no difference could be shown" is the verdict. Arms that no
       planned contrast compares with it are named as not compared.

    The second sentence says what the number of seeds allows: with fewer pairs than the exact test needs, no
    difference could be shown whatever its size. It names contrasts between other arms that were shown, and
    arms without a result. An interrupted run is called provisional.
    """
    tested = findings.tested(summary)
    if len(tested) > 1:
        sentences = _compared(summary, tested)
    elif tested:
        sentences = _alone(summary, *tested.popitem())
    elif any(arm.best or arm.winner for arm in summary.arms.values()):
        sentences = _untested(summary)
    else:
        sentences = _nothing(summary)
    opening = "" if summary.complete else "Provisional, since the run was interrupted: "
    return opening + " ".join(sentences)


def rates_by_site(summary: Summary) -> str:
    """Say whether a rate for each site beats one shared rate; empty where the two were not compared."""
    contrasts = (c for c in findings.comparisons(summary) if (c.a, c.b) == ("dropout", "dropout_shared"))
    found = next((c for c in contrasts if c.differences), None)
    if found is None:
        return ""
    scale, difference = Scale(summary.comparison_metric), found.difference
    if findings.shown(found):
        better = (difference.mean > 0) is summary.comparison_metric.higher_is_better
        one, other = (
            ("A rate for each site", "one rate for all") if better else ("One rate for all", "a rate for each site")
        )
        return f"{one} beats {other} by {_size(found, scale)} on {summary.comparison_metric.label}."
    bounds = f"{scale.difference(difference.low)} to {scale.difference(difference.high)}{scale.unit}"
    interval = f" (dropout minus dropout_shared, 95 % interval {bounds})" if math.isfinite(difference.low) else ""
    return f"Whether a rate for each site does better than one rate for all could not be shown{interval}."


def _nothing(summary: Summary) -> tuple[str, str]:
    trials = sum(len(arm.trials) for arm in summary.arms.values())
    first = "No trial was completed, so nothing can be said about dropout or BatchNorm."
    reasons = sum((findings.reasons(arm) for arm in summary.arms.values()), Counter[str]())
    if not reasons:
        return (
            first,
            f"Of {trials} trials none failed and all were pruned." if trials else "None had ended yet.",
        )
    reason, _ = reasons.most_common(1)[0]
    why = shorten(" ".join(reason.split()).rstrip("."), 200)
    return first, f"Of {trials} trials {reasons.total()} failed, most often with: {why}."


def _untested(summary: Summary) -> tuple[str, str]:
    confirmed = {n: findings.confirmed_loss(arm) for n, arm in summary.arms.items() if arm.winner}
    losses = confirmed or {name: findings.search_loss(arm) for name, arm in summary.arms.items() if arm.best}
    first = (max if summary.monitor.mode == "max" else min)(losses, key=losses.__getitem__)
    unit = " nats" if summary.comparison_metric.percent else ""
    how = "on fresh seeds" if confirmed else "in the search, where the luckiest trial leads until it is confirmed"
    return (
        "No arm has a test result, so none can be called best.",
        f"On {_monitored(summary)} {first} leads with {losses[first]:.4f}{unit} {how}{_missing(summary, losses)}.",
    )


def _alone(summary: Summary, name: str, outcome: ArmOutcome) -> tuple[str, str]:
    score, scale = judged(outcome, summary.comparison_metric), Scale(summary.comparison_metric)
    interval = ""
    if math.isfinite(score.low):
        interval = f" (95 % interval {scale.interval(score.low, score.high)})"
    reached = f"{_titled(outcome)} reached {scale.value(score.mean)} {summary.comparison_metric.label}{interval}"
    return (
        f"{reached}, and no other arm {'was tested' if on_test(summary) else 'has a result'}.",
        f"What dropout or BatchNorm changes takes a second tested arm to tell{_missing(summary, [name])}.",
    )


@dataclass(frozen=True)
class _Standing:
    """The arm with the best mean test accuracy, or what else is the judge, and how each other arm stands to it."""

    comparison_metric: ComparisonMetric
    best: ArmOutcome
    against: dict[str, Comparison]
    """The planned contrast of the best arm with another, by the other's name."""
    beaten: list[str]
    level: list[str]
    """Compared with the best arm, and no difference could be shown."""
    apart: list[str]
    """Not compared with the best arm by plan."""


def _standing(
    tested: dict[str, ArmOutcome], contrasts: list[Comparison], comparison_metric: ComparisonMetric
) -> _Standing:
    best = leader({name: judged(arm, comparison_metric).mean for name, arm in tested.items()}, comparison_metric)
    sign = 1 if comparison_metric.higher_is_better else -1
    against = {(c.b if c.a == best else c.a): c for c in contrasts if best in (c.a, c.b)}
    beaten = [name for name, c in against.items() if findings.shown(c) and sign * _lead(c, best) > 0]
    level = [name for name in against if name not in beaten]
    apart = [name for name in tested if name != best and name not in against]
    return _Standing(comparison_metric, tested[best], against, beaten, level, apart)


def _compared(summary: Summary, tested: dict[str, ArmOutcome]) -> tuple[str, str]:
    contrasts = [c for c in findings.comparisons(summary) if c.a in tested and c.b in tested]
    comparison_metric, scale = summary.comparison_metric, Scale(summary.comparison_metric)
    standing = _standing(tested, contrasts, comparison_metric)
    others = [c for c in contrasts if c not in standing.against.values() and findings.shown(c)]
    second = _certainty(summary, contrasts, standing, bool(standing.beaten or others))
    if others:
        second += f"; among the others, {_and([_ahead(c, scale) for c in others])}"
    return f"{_finding(standing)}.", f"{second}{_missing(summary, tested)}."


def _finding(standing: _Standing) -> str:
    comparison_metric, scale = standing.comparison_metric, Scale(standing.comparison_metric)
    name, score, label = (
        _titled(standing.best),
        scale.value(judged(standing.best, comparison_metric).mean),
        comparison_metric.label,
    )
    ahead = _and([f"{other} by {_size(standing.against[other], scale)}" for other in standing.beaten])
    level, has = _or(standing.level), f"{name} has the best mean {label} ({score})"
    if standing.beaten and not standing.level and not standing.apart:
        text = f"{name} is best on {label} ({score}): it beats {ahead}"
    elif standing.beaten and standing.level:
        text = f"{has} and beats {ahead}, but no difference could be shown between it and {level}"
    elif standing.beaten:
        text = f"{has} and beats {ahead}"
    elif standing.level:
        leads = f"{name}, which has the best mean {label} ({score}),"
        text = f"No difference could be shown between {leads} and {level}"
    else:
        text = has
    if standing.apart:
        text += f"; no planned contrast compares it with {_or(standing.apart)}"
    return text


def _certainty(summary: Summary, contrasts: list[Comparison], standing: _Standing, any_shown: bool) -> str:
    """What the number of seeds allows to say."""
    if not contrasts:
        return "Nothing was tested for a difference"
    pairs = max(len(contrast.differences) for contrast in contrasts)
    seeds, family = _count(pairs, "paired seed"), len(findings.comparisons(summary))
    needed = minimum_seeds(family)
    if pairs < needed and not any_shown:
        few = f"With {seeds} and {_count(family, 'planned contrast')}"
        return f"{few} no difference could be shown whatever its size: it takes confirm.seeds={needed} or more"
    intervals = [standing.against[name].difference for name in standing.level]
    bounds = [abs(bound) for interval in intervals for bound in (interval.low, interval.high)]
    widest = max((bound for bound in bounds if math.isfinite(bound)), default=math.nan)
    if not any_shown and math.isfinite(widest):
        scale = Scale(summary.comparison_metric)
        return f"With {seeds} differences of up to {scale.size(widest)}{scale.unit} remain possible"
    return f"This rests on {seeds} and one {'test' if on_test(summary) else 'validation'} set"


def _missing(summary: Summary, present: Sequence[str] | dict) -> str:
    """A clause that names the arms without a result."""
    absent = [name for name in summary.arms if name not in present]
    if not absent:
        return ""
    told = []
    for name in absent:
        failed, trials = findings.states(summary.arms[name])["FAIL"], len(summary.arms[name].trials)
        told.append(f"{name} ({failed} of {_count(trials, 'trial')} failed)" if failed else name)
    return f"; without a result: {_and(told)}"


def _titled(outcome: ArmOutcome) -> str:
    """An arm's name, and in brackets what it stands for where the name does not say it."""
    name, title = outcome.arm.name, outcome.arm.title
    return name if title.lower() == name else f"{name} ({title})"


def _lead(comparison: Comparison, name: str) -> float:
    """By how much `name` is ahead of the other arm of the contrast."""
    return comparison.difference.mean if comparison.a == name else -comparison.difference.mean


def _ahead(comparison: Comparison, scale: Scale) -> str:
    one, other = comparison.a, comparison.b
    if (comparison.difference.mean < 0) is scale.comparison_metric.higher_is_better:
        one, other = other, one
    return f"{one} beats {other} by {_size(comparison, scale)}"


def on_test(summary: Summary) -> bool:
    """Whether arms are judged on a test set."""
    return summary.comparison_metric.scores != "val_loss"


def _monitored(summary: Summary) -> str:
    return "validation loss" if summary.monitor.is_val_loss else summary.monitor.name


def _size(comparison: Comparison, scale: Scale) -> str:
    """How large a shown difference is, whichever way it points."""
    low, high = sorted(abs(bound) for bound in (comparison.difference.low, comparison.difference.high))
    mean = abs(comparison.difference.mean)
    return f"{scale.size(mean)}{scale.unit} (95 % interval {scale.size(low)} to {scale.size(high)})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _and(names: Sequence[str], word: str = "and") -> str:
    return f" {word} ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def _or(names: Sequence[str]) -> str:
    return _and(names, "or")
