"""What is said of the contrast of two arms."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from dropsearch.core.records import ArmOutcome, Comparison, Confirmed, Interval, Summary
from dropsearch.report import findings
from dropsearch.report.numbers import Scale, probability
from dropsearch.report.text.phrases import counted


def is_same(one: ArmOutcome, other: ArmOutcome) -> bool:
    """Return whether two arms chose one model: the same retrainings, or retrainings with equal settings and results."""
    if one.winner is None or other.winner is None:
        return False

    def owner(outcome: ArmOutcome, winner: Confirmed) -> tuple[str, int]:
        return winner.owner or outcome.arm.name, winner.number

    def model(outcome: ArmOutcome, winner: Confirmed) -> tuple[Any, ...]:
        specs = [result.spec for result in winner.results]
        settings = [
            ({site: rate for site, rate in each.rates.items() if rate}, each.seed, each.lr, each.weight_decay)
            for each in specs
        ]
        return outcome.arm.batchnorm, settings, [each.hyperparameters for each in specs], winner.val_loss

    if owner(one, one.winner) == owner(other, other.winner):
        return True
    return bool(one.winner.results) and model(one, one.winner) == model(other, other.winner)


def idle_sites(summary: Summary, name: str) -> list[str]:
    """Return the sites of an arm's rates above 0 if none of these has an effect: then the arm has no dropout."""
    above = [site for site, rate in summary.arms[name].rates.items() if rate > 0]
    return above if all(site in summary.without_effect for site in above) else []


def differ_in_settings(summary: Summary, one: str, other: str) -> bool:
    """Return whether two arms have no dropout, one of them since its rates have no effect, and the same BatchNorm."""
    alike = [name for name in (one, other) if idle_sites(summary, name) or not any(summary.arms[name].rates.values())]
    idle = idle_sites(summary, one) or idle_sites(summary, other)
    return bool(idle) and len(alike) == 2 and summary.arms[one].arm.batchnorm == summary.arms[other].arm.batchnorm


def of_different_models(summary: Summary, contrasts: Iterable[Comparison]) -> list[Comparison]:
    """Return contrasts without those of a model with itself; of several of the same two models, the first."""
    arms = summary.arms
    first = {name: next(each for each in arms if each == name or is_same(arms[each], arms[name])) for name in arms}
    found: dict[tuple[str, frozenset[str]], Comparison] = {}
    for each in contrasts:
        models = frozenset(first.get(name, name) for name in (each.a, each.b))
        if len(models) > 1:
            found.setdefault((each.metric, models), each)
    return [*found.values()]


def between(summary: Summary, one: str, other: str) -> Comparison | None:
    """Return the planned contrast of two arms, or of arms with the same models, under the names of the two."""
    names = dict.fromkeys(_with_model(summary, one, other), one)
    names |= {arm: other for arm in _with_model(summary, other, one) if arm not in names}
    planned = {frozenset((c.a, c.b)): c for c in reversed(summary.contrasts)}
    pairs = ((a, b) for a in names for b in names if names[a] == one and names[b] == other)
    found = next(filter(None, (planned.get(frozenset(pair)) for pair in pairs)), None)
    return None if found is None else dataclasses.replace(found, a=names[found.a], b=names[found.b])


def _with_model(summary: Summary, name: str, other: str) -> list[str]:
    """Return an arm and all arms that chose its model, but for another one."""
    known = summary.arms.get(name)
    return [name, *(arm for arm in summary.arms if known and arm != other and is_same(summary.arms[arm], known))]


def lead_of(summary: Summary, contrast: Comparison, name: str) -> float:
    """Return by how much `name` is better than the other arm of the contrast."""
    lead = contrast.difference.mean if contrast.a == name else -contrast.difference.mean
    return lead if summary.comparison_metric.higher_is_better else -lead


def difference(summary: Summary, contrast: Comparison, name: str) -> str:
    """Return the difference of `name` minus the other arm in brackets; empty without one."""
    scale, (mean, low, high) = Scale(summary.comparison_metric), _turned(contrast, name)
    if not math.isfinite(mean):
        return ""
    mean_text, *ends = scale.differences(Interval(mean, low, high))
    interval = f", 95 % CI {ends[0]} to {ends[1]}{_adjusted(summary, contrast)}" if math.isfinite(low) else ""
    # Without a unit, a sign alone would not tell what is more.
    return f" ({mean_text}{scale.unit or f' {summary.comparison_metric.label}'}{interval})"


def _turned(contrast: Comparison, name: str) -> tuple[float, float, float]:
    """Return the difference of `name` minus the other arm, and the ends of its interval."""
    mean, low, high = contrast.difference.mean, contrast.difference.low, contrast.difference.high
    return (mean, low, high) if contrast.a == name else (-mean, -high, -low)


def _adjusted(summary: Summary, contrast: Comparison) -> str:
    """Return why a difference is not shown although its interval excludes zero; empty otherwise."""
    low, high = _bounds(contrast)
    if not math.isfinite(low) or low <= 0 <= high or contrast.missing or findings.shown(contrast):
        return ""
    count = len(summary.contrasts)
    return f", but p = {probability(contrast.p_holm)} adjusted for {counted(count, 'contrast')}"


def size(summary: Summary, contrast: Comparison) -> str:
    """Return the absolute size of a shown difference."""
    scale = Scale(summary.comparison_metric)
    low, high = sorted(map(abs, _bounds(contrast)))
    mean_text, *ends = scale.sizes(Interval(abs(contrast.difference.mean), low, high))
    return f"{mean_text}{scale.unit} (95 % CI {ends[0]} to {ends[1]})"


def _bounds(contrast: Comparison) -> tuple[float, float]:
    return contrast.difference.low, contrast.difference.high


def excluded(summary: Summary, contrast: Comparison, on: str) -> str:
    """Return a clause with the improvement that the interval excludes; empty without an interval."""
    scale = Scale(summary.comparison_metric)
    higher = summary.comparison_metric.higher_is_better is (contrast.a == on)
    most = contrast.difference.high if higher else -contrast.difference.low
    if not math.isfinite(most):
        return ""
    if most <= 0:
        return ", any improvement is excluded"
    adjusted = _adjusted(summary, contrast).removeprefix(", but ")
    size, *_ = scale.sizes(dataclasses.replace(contrast.difference, mean=most))
    return f"{f' ({adjusted})' if adjusted else ''}, more than {size}{scale.unit} is excluded"
