"""The verdict in three sentences: which arm to use, which are tied with it, which are not better."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from dropsearch.core.records import Summary, best_arm
from dropsearch.report import findings
from dropsearch.report.measured_values import finite
from dropsearch.report.numbers import Scale, judged, loss, rate
from dropsearch.report.text.contrast_phrases import (
    between,
    differ_in_settings,
    difference,
    excluded,
    idle_sites,
    is_same,
    lead_of,
    size,
)
from dropsearch.report.text.phrases import (
    MOST_RATES,
    capitalized,
    comparison_set,
    counted,
    listed,
    monitored,
    on_test,
    short_names,
)
from dropsearch.report.text.unconfirmed import nothing, unconfirmed

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
    if name is not None and not any(arm.trials for arm in summary.arms.values()):
        return (_trained_once(summary, name),)
    if name is not None and not _others(summary, name):
        return _use(summary, name), _alone(summary, name)
    if name is not None:
        return _use(summary, name), _tied(summary, name), _not_better(summary, name)
    if any(arm.best for arm in summary.arms.values()):
        return unconfirmed(summary)
    return nothing(summary)


def _trained_once(summary: Summary, name: str) -> str:
    """Return what a retraining by itself shows, which recommends nothing."""
    outcome = summary.arms[name]
    seeds = ", ".join(map(str, outcome.winner.seeds)) if outcome.winner else ""
    value = loss(findings.confirmed_loss(outcome))
    return f"{capitalized(_model(summary, name))}: trained again with seed {seeds}, best {monitored(summary)} {value}."


# Which arm to use


def _use(summary: Summary, name: str) -> str:
    outcome, scale = summary.arms[name], Scale(summary.comparison_metric)
    score = judged(outcome, summary.comparison_metric)
    known_score = scale.score(score) if math.isfinite(score.mean) else ""
    measured = f"{summary.comparison_metric.label} {known_score}" if known_score and on_test(summary) else ""
    of_choice = loss(findings.confirmed_loss(outcome)) if measured or not known_score else known_score
    count = len(outcome.winner.results) if outcome.winner else 0
    known = len(finite(outcome.scores(summary.comparison_metric)))
    seeds = f"{known} of {count} fresh seeds" if 0 < known < count else counted(count, "fresh seed")
    splits = f" and split{'' if count == 1 else 's'}" if summary.redraws_split else ", one split"
    scores = "; ".join(filter(None, [_why(summary, name, of_choice), measured]))
    return f"Use {_model(summary, name)}: {scores}, {seeds}{splits}."


def _model(summary: Summary, name: str) -> str:
    outcome = summary.arms[name]
    title = outcome.arm.title
    if outcome.arm.dropout == "off":
        with_batchnorm = any(arm.arm.batchnorm for arm in summary.arms.values())
        plain = "the plain model, without dropout" + (" and BatchNorm" if with_batchnorm else "")
        return f"{title} without dropout" if outcome.arm.batchnorm else plain
    rates = outcome.rates
    if not any(rates.values()):
        own = summary.own_arguments.get(name)
        model = "BatchNorm" if outcome.arm.batchnorm else "the plain model"
        return f"{model}{f' with {own}' if own else ''} (every rate chosen is 0)"
    if idle := idle_sites(summary, name):
        model, sites = "BatchNorm" if outcome.arm.batchnorm else "the plain model", listed(short_names(idle))
        only = "that of {} is above 0, which has" if len(idle) == 1 else "those of {} are above 0, which have"
        return f"{model} of the arm {name} (of its rates only {only.format(sites)} no effect)"
    if outcome.arm.dropout == "shared":
        return f"dropout with one rate for all sites, {rate(next(iter(rates.values())))}"
    if len(rates) > MOST_RATES:
        low, high = min(rates.values()), max(rates.values())
        return f"{title} with rates from {rate(low)} to {rate(high)} at {len(rates)} sites (table below)"
    each = " / ".join("0" if value == 0 else rate(value) for value in rates.values())
    return f"{title} with {'rates' if len(rates) > 1 else 'rate'} {each} ({', '.join(short_names(list(rates)))})"


def _why(summary: Summary, name: str, value: str) -> str:
    """Return by which value of the monitored metric an arm was chosen."""
    won = {arm: outcome.winner for arm, outcome in summary.arms.items() if outcome.winner}
    best = min(won.values(), key=lambda winner: winner.mean_val_loss)
    chosen, metric = won[name], monitored(summary)
    if chosen.mean_val_loss == best.mean_val_loss:
        return f"{'best' if summary.monitor.mode == 'max' else 'least'} {metric} {value}"
    first = next(arm for arm, winner in won.items() if winner is best)
    return f"{metric} {value}, tied with that of {summary.arms[first].arm.title}, which is less simple"


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
        return f"{capitalized('; '.join(clauses))}{absent}."
    return f"No other arm is tied with it{absent}."


def _ties(summary: Summary, name: str) -> Iterator[str]:
    """Yield the relations of all arms to the one to use that are not shown to be worse."""
    better: list[str] = []
    alike: dict[str, list[str]] = {}  # arms by their difference, which is one for arms with one model
    unknown: list[str] = []
    same = [other for other in _others(summary, name) if is_same(summary.arms[name], summary.arms[other])]
    yield from _same(summary, name, same)
    for other in _others(summary, name):
        title, contrast = summary.arms[other].arm.title, between(summary, name, other)
        if other in same:
            continue
        if contrast is None or not contrast.differences:
            yield f"{title} was not compared with it"
        elif differ_in_settings(summary, name, other):
            by = difference(summary, contrast, other)
            yield f"{title} differs from it in learning rate and weight decay, not in dropout{by}"
        elif not findings.shown(contrast):
            apart = difference(summary, contrast, other)
            if contrast.missing or not math.isfinite(contrast.difference.low):  # with few seeds there is no interval
                unknown.append(f"{title}{apart}")
            else:
                alike.setdefault(apart, []).append(title)
        elif lead_of(summary, contrast, other) > 0:
            better.append(f"{title} by {size(summary, contrast)}")
    if better:
        yield f"better on the {comparison_set(summary)}, which has no say in the choice: {', '.join(better)}"
    if alike:
        yield f"not distinguishable from it: {', '.join(f'{listed(arms)}{apart}' for apart, arms in alike.items())}"
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
        return f"{capitalized('; '.join(clauses))}."
    return "No arm is shown to be worse."


def _worse(summary: Summary, name: str) -> Iterator[str]:
    worse: dict[str, list[str]] = {}
    for other in _others(summary, name):
        contrast = None if differ_in_settings(summary, name, other) else between(summary, name, other)
        if contrast and findings.shown(contrast) and lead_of(summary, contrast, other) < 0:
            worse.setdefault(size(summary, contrast), []).append(summary.arms[other].arm.title)
    for apart, arms in worse.items():
        yield f"{listed(arms)} {'is' if len(arms) == 1 else 'are'} worse by {apart}"


def _no_effect(summary: Summary, name: str) -> Iterator[str]:
    """Yield arms with dropout or BatchNorm that are not shown to improve on the arm without it."""
    known = summary.arms
    for on, off in EFFECTS:
        if on not in known or off not in known or any(is_same(known[name], known[arm]) for arm in (on, off)):
            continue
        title, lacking = summary.arms[on].arm.title, summary.arms[off].arm.title
        contrast = between(summary, on, off)
        if is_same(summary.arms[on], summary.arms[off]):
            yield f"{title}: no dropout was chosen"
        elif differ_in_settings(summary, on, off):
            yield f"{title}: no dropout with an effect was chosen"
        elif not contrast or contrast.missing or not math.isfinite(contrast.difference.low):
            continue
        elif contrast.differences and not findings.shown(contrast):
            yield f"{title}: no improvement over {lacking} shown{excluded(summary, contrast, on)}"


def rates_by_site(summary: Summary) -> str:
    """Return whether per-site rates beat one shared rate; empty if the two were not compared."""
    contrast = between(summary, "dropout", "dropout_shared")
    if contrast is None or not contrast.differences:
        return ""
    if is_same(summary.arms["dropout"], summary.arms["dropout_shared"]):
        used = best_arm(summary.arms)
        if used is not None and is_same(summary.arms["dropout"], summary.arms[used]):
            return ""  # the answer says so
        return "A rate for each site and one rate for all sites came to the same model."
    if contrast.missing or differ_in_settings(summary, "dropout", "dropout_shared"):
        return ""
    if not findings.shown(contrast):
        by = difference(summary, contrast, "dropout")
        return f"A rate for each site is not shown to be better than one rate for all{by}."
    better = lead_of(summary, contrast, "dropout") > 0
    one, other = (
        ("A rate for each site", "one rate for all") if better else ("One rate for all", "a rate for each site")
    )
    return f"{one} is better than {other} by {size(summary, contrast)}."


# Parts of sentences


def _others(summary: Summary, name: str) -> list[str]:
    return [other for other, outcome in summary.arms.items() if other != name and outcome.winner]


def _titles(summary: Summary, arms: Sequence[str]) -> str:
    # Short ones first: "dropout and dropout with one rate" cannot be read as one arm.
    return listed(sorted((summary.arms[arm].arm.title for arm in arms), key=len))


def _missing(summary: Summary) -> str:
    """Return a clause with the arms without a result."""
    clauses = []
    for outcome in summary.arms.values():
        if outcome.winner is None:
            failed, trials = findings.states(outcome)["FAIL"], len(outcome.trials)
            title = outcome.arm.title
            clauses.append(f"{title} ({failed} of {counted(trials, 'trial')} failed)" if failed else title)
    return f"; without a result: {', '.join(clauses)}" if clauses else ""
