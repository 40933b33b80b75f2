"""The verdict in three sentences: which arm to use, which are tied with it, which are not better."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from dropsearch.core.records import ArmOutcome, Comparison, Confirmed, Interval, Summary, best_arm
from dropsearch.report import findings
from dropsearch.report.measured_values import finite
from dropsearch.report.numbers import Scale, judged, loss, probability, rate, shorten

MOST_RATES = 6
"""Maximum number of rates in a sentence; more are in the table."""
EFFECTS = (("dropout", "none"), ("batchnorm", "none"), ("both", "batchnorm"))
"""Arms that add dropout or BatchNorm, with the arm without it."""
PARTNERS = {"none": "dropout", "batchnorm": "both", "both": "batchnorm"}
"""Arm to compare with to see the effect of dropout, by arm; ``none`` for all others."""


def verdict(summary: Summary) -> str:
    """Return the three sentences as one paragraph."""
    return " ".join(answer(summary))


def answer(summary: Summary) -> tuple[str, ...]:
    """Return which arm to use, which arms are tied with it, and which are not better.

    The arm to use is chosen by validation only (`best_arm`). The other two sentences follow from the planned contrasts
    on the test set: another arm is called worse or better only if that is shown, otherwise it is tied. With one arm,
    the second sentence suggests an arm to compare with. Without a confirmation, the sentences state the progress.
    """
    name = best_arm(summary.arms)
    if name is not None and not _others(summary, name):
        return _use(summary, name), _alone(summary, name)
    if name is not None:
        return _use(summary, name), _tied(summary, name), _not_better(summary, name)
    if any(arm.best for arm in summary.arms.values()):
        return _unconfirmed(summary)
    return _nothing(summary)


# Which arm to use


def _use(summary: Summary, name: str) -> str:
    outcome, scale = summary.arms[name], Scale(summary.comparison_metric)
    score = judged(outcome, summary.comparison_metric)
    measured = f"{_label(summary)} {scale.score(score)}" if math.isfinite(score.mean) else ""
    count = len(outcome.winner.results) if outcome.winner else 0
    known = len(finite(outcome.scores(summary.comparison_metric)))
    seeds = f"{known} of {count} fresh seeds" if 0 < known < count else _count(count, "fresh seed")
    splits = f" and split{'' if count == 1 else 's'}" if summary.redraws_split else ", one split"
    return f"Use {_model(summary, name)}: {_why(summary, name)}{'; ' if measured else ''}{measured}, {seeds}{splits}."


def _model(summary: Summary, name: str) -> str:
    outcome = summary.arms[name]
    title = outcome.arm.title
    if outcome.arm.dropout == "off":
        with_batchnorm = any(arm.arm.batchnorm for arm in summary.arms.values())
        plain = "the plain model, without dropout" + (" and BatchNorm" if with_batchnorm else "")
        return f"{title} without dropout" if outcome.arm.batchnorm else plain
    rates = outcome.rates
    if not any(rates.values()):
        return f"{'BatchNorm' if outcome.arm.batchnorm else 'the plain model'} (every rate chosen is 0)"
    if outcome.arm.dropout == "shared":
        return f"dropout with one rate for all sites, {rate(next(iter(rates.values())))}"
    if len(rates) > MOST_RATES:
        low, high = min(rates.values()), max(rates.values())
        return f"{title} with rates from {rate(low)} to {rate(high)} at {len(rates)} sites (table below)"
    listed = " / ".join("0" if value == 0 else rate(value) for value in rates.values())
    return f"{title} with {'rates' if len(rates) > 1 else 'rate'} {listed} ({', '.join(short_names(list(rates)))})"


def short_names(sites: Sequence[str]) -> list[str]:
    """Return the paths of sites without the suffix `dropout` and without their common prefix."""
    parts = [path[:-1] if len(path) > 1 and path[-1] == "dropout" else path for path in (s.split(".") for s in sites)]
    while all(len(path) > 1 for path in parts) and len({path[0] for path in parts}) == 1:
        parts = [path[1:] for path in parts]
    return [".".join(path) for path in parts]


def _why(summary: Summary, name: str) -> str:
    won = {arm: outcome.winner for arm, outcome in summary.arms.items() if outcome.winner}
    best = min(won.values(), key=lambda winner: winner.mean_val_loss)
    chosen, monitored = won[name], _monitored(summary)
    value = loss(findings.confirmed_loss(summary.arms[name]))
    if chosen.mean_val_loss == best.mean_val_loss:
        return f"{'best' if summary.monitor.mode == 'max' else 'least'} {monitored} {value}"
    first = next(arm for arm, winner in won.items() if winner is best)
    return f"{monitored} {value}, tied with that of {summary.arms[first].arm.title}, which is less simple"


def _alone(summary: Summary, name: str) -> str:
    if len(summary.arms) > 1:
        return f"No other arm has a result, so nothing is compared{_missing(summary)}."
    return (
        f"No other arm was run, so nothing is compared: add the arm {PARTNERS.get(name, 'none')} to arms to see what "
        "dropout changes."
    )


# Which arms are tied


def _tied(summary: Summary, name: str) -> str:
    clauses = [*_ties(summary, name)]
    absent = _missing(summary)
    if clauses:
        return f"{_capital('; '.join(clauses))}{absent}."
    return f"No other arm is tied with it{absent}."


def _ties(summary: Summary, name: str) -> Iterator[str]:
    """Yield the relations of all arms to the one to use that are not shown to be worse."""
    better: list[str] = []
    alike: list[str] = []
    unknown: list[str] = []
    same = [other for other in _others(summary, name) if is_same(summary.arms[name], summary.arms[other])]
    yield from _same(summary, name, same)
    for other in _others(summary, name):
        title, contrast = summary.arms[other].arm.title, _between(summary, name, other)
        if other in same:
            continue
        if contrast is None or not contrast.differences:
            yield f"{title} was not compared with it"
        elif not findings.shown(contrast):
            (unknown if contrast.missing else alike).append(f"{title}{_difference(summary, contrast, other)}")
        elif _ahead(summary, contrast, other) > 0:
            better.append(f"{title} by {_size(summary, contrast)}")
    if better:
        yield f"better on the {_where(summary)}, which has no say in the choice: {', '.join(better)}"
    if alike:
        yield f"not distinguishable from it: {', '.join(alike)}"
    if unknown:
        do = "it differs from the recommended one" if len(unknown) == 1 else "they differ from it"
        yield f"whether {do} cannot be said: {', '.join(unknown)}"


def _same(summary: Summary, name: str, others: Sequence[str]) -> Iterator[str]:
    """Yield that arms chose the model of the one to use, and whether they chose no dropout."""
    without = not any(summary.arms[name].rates.values())
    chose_none = [other for other in others if without and summary.arms[other].arm.dropout != "off"]
    rest = [other for other in others if other not in chose_none]
    if chose_none:
        they_are = "it is" if len(chose_none) == 1 else "they are"
        yield f"{_titles(summary, chose_none)}: no dropout was chosen, {they_are} the same model"
    if rest:
        yield f"{_titles(summary, rest)} {'is' if len(rest) == 1 else 'are'} the same model"


# Which arms are not better


def _not_better(summary: Summary, name: str) -> str:
    clauses = [*_worse(summary, name), *_no_effect(summary, name)]
    if clauses:
        return f"{_capital('; '.join(clauses))}."
    return "No arm is shown to be worse."


def _worse(summary: Summary, name: str) -> Iterator[str]:
    for other in _others(summary, name):
        contrast = _between(summary, name, other)
        if contrast and findings.shown(contrast) and _ahead(summary, contrast, other) < 0:
            yield f"{summary.arms[other].arm.title} is worse by {_size(summary, contrast)}"


def _no_effect(summary: Summary, name: str) -> Iterator[str]:
    """Yield arms with dropout or BatchNorm that are not shown to improve on the arm without it."""
    for on, off in EFFECTS:
        if name in (on, off) or on not in summary.arms or off not in summary.arms:
            continue
        title, lacking = summary.arms[on].arm.title, summary.arms[off].arm.title
        contrast = _between(summary, on, off)
        if is_same(summary.arms[on], summary.arms[off]):
            yield f"{title}: no dropout was chosen"
        elif contrast and contrast.differences and not contrast.missing and not findings.shown(contrast):
            yield f"{title}: no improvement over {lacking} shown{_excluded(summary, contrast, on)}"


def _excluded(summary: Summary, contrast: Comparison, on: str) -> str:
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


# Without a confirmation


def _unconfirmed(summary: Summary) -> tuple[str, str]:
    losses = {name: findings.search_loss(arm) for name, arm in summary.arms.items() if arm.best}
    first = (max if summary.monitor.mode == "max" else min)(losses, key=losses.__getitem__)
    failed = [result for arm in summary.arms.values() for each in arm.confirmed for result in each.failed]
    reason = "No arm can be recommended yet: no configuration was confirmed on all fresh seeds."
    if summary.complete and failed:
        why, _ = Counter(result.reason or "no reason recorded" for result in failed).most_common(1)[0]
        reason = (
            "No arm can be recommended: each confirmed configuration has a retraining that failed, most often with: "
            f"{shorten(' '.join(why.split()).rstrip('.'), 120)}."
        )
    return (
        reason,
        f"In the search {summary.arms[first].arm.title} leads with {_monitored(summary)} {loss(losses[first])}, but "
        "there the luckiest trial leads.",
    )


def _nothing(summary: Summary) -> tuple[str, str]:
    trials = sum(len(arm.trials) for arm in summary.arms.values())
    first = "No trial was completed, so nothing can be said about dropout or BatchNorm."
    reasons = sum((findings.reasons(arm) for arm in summary.arms.values()), Counter[str]())
    if not reasons:
        return first, f"Of {trials} trials none failed and all were pruned." if trials else "None had ended yet."
    reason, _ = reasons.most_common(1)[0]
    why = shorten(" ".join(reason.split()).rstrip("."), 200)
    return first, f"Of {trials} trials {reasons.total()} failed, most often with: {why}."


def rates_by_site(summary: Summary) -> str:
    """Return whether per-site rates beat one shared rate; empty if the two were not compared."""
    contrast = _between(summary, "dropout", "dropout_shared")
    if contrast is None or not contrast.differences:
        return ""
    if is_same(summary.arms["dropout"], summary.arms["dropout_shared"]):
        used = best_arm(summary.arms)
        if used is not None and is_same(summary.arms["dropout"], summary.arms[used]):
            return ""  # the answer says so
        return "A rate for each site and one rate for all sites came to the same model."
    if contrast.missing:
        return ""
    if not findings.shown(contrast):
        difference = _difference(summary, contrast, "dropout")
        return f"A rate for each site is not shown to be better than one rate for all{difference}."
    better = _ahead(summary, contrast, "dropout") > 0
    one, other = (
        ("A rate for each site", "one rate for all") if better else ("One rate for all", "a rate for each site")
    )
    return f"{one} is better than {other} by {_size(summary, contrast)}."


# Parts of sentences


def _others(summary: Summary, name: str) -> list[str]:
    return [other for other, outcome in summary.arms.items() if other != name and outcome.winner]


def _titles(summary: Summary, arms: Sequence[str]) -> str:
    return listed([summary.arms[arm].arm.title for arm in arms])


def _between(summary: Summary, one: str, other: str) -> Comparison | None:
    """Return the planned contrast of two arms, or of an arm with the same model as `one` and the other."""
    known = summary.arms.get(one)
    alike = [one, *(arm for arm in summary.arms if known and arm != other and is_same(summary.arms[arm], known))]
    planned = {frozenset((c.a, c.b)): c for c in reversed(summary.contrasts)}
    found = (planned.get(frozenset((arm, other))) for arm in alike)
    return next(filter(None, found), None)


def _ahead(summary: Summary, contrast: Comparison, name: str) -> float:
    """Return by how much `name` is better than the other arm of the contrast."""
    lead = contrast.difference.mean if contrast.a == name else -contrast.difference.mean
    return lead if summary.comparison_metric.higher_is_better else -lead


def _difference(summary: Summary, contrast: Comparison, name: str) -> str:
    """Return the difference of `name` minus the other arm in brackets; empty without one."""
    scale, (mean, low, high) = Scale(summary.comparison_metric), _turned(contrast, name)
    if not math.isfinite(mean):
        return ""
    mean_text, *ends = scale.differences(Interval(mean, low, high))
    interval = f", 95 % CI {ends[0]} to {ends[1]}{_adjusted(summary, contrast)}" if math.isfinite(low) else ""
    return f" ({mean_text}{scale.unit}{interval})"


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
    return f", but p = {probability(contrast.p_holm)} adjusted for {_count(count, 'contrast')}"


def _size(summary: Summary, contrast: Comparison) -> str:
    """Return the absolute size of a shown difference."""
    scale = Scale(summary.comparison_metric)
    low, high = sorted(map(abs, _bounds(contrast)))
    mean_text, *ends = scale.sizes(Interval(abs(contrast.difference.mean), low, high))
    return f"{mean_text}{scale.unit} (95 % CI {ends[0]} to {ends[1]})"


def _bounds(contrast: Comparison) -> tuple[float, float]:
    return contrast.difference.low, contrast.difference.high


def _missing(summary: Summary) -> str:
    """Return a clause with the arms without a result."""
    clauses = []
    for outcome in summary.arms.values():
        if outcome.winner is None:
            failed, trials = findings.states(outcome)["FAIL"], len(outcome.trials)
            title = outcome.arm.title
            clauses.append(f"{title} ({failed} of {_count(trials, 'trial')} failed)" if failed else title)
    return f"; without a result: {', '.join(clauses)}" if clauses else ""


def on_test(summary: Summary) -> bool:
    """Return whether arms are compared on a test set."""
    return summary.comparison_metric.scores != "val_loss"


def _where(summary: Summary) -> str:
    return "test set" if on_test(summary) else "validation set"


def _label(summary: Summary) -> str:
    return summary.comparison_metric.label


def _monitored(summary: Summary) -> str:
    return "validation loss" if summary.monitor.is_val_loss else summary.monitor.name


def listed(names: Sequence[str]) -> str:
    """Return names as a list in a sentence."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _capital(text: str) -> str:
    return text if text.startswith("BatchNorm") else f"{text[:1].upper()}{text[1:]}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
