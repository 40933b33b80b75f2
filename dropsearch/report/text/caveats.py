"""Caveats: sentences of the report on what its numbers do not say."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator

from dropsearch.core.records import Summary, arm_title
from dropsearch.report import findings
from dropsearch.report.numbers import loss, percent, shorten
from dropsearch.report.text.phrases import on_test


def caveats(summary: Summary, test_examples: int | None = None) -> list[str]:
    """Return one or two sentences for each caveat, the most severe first.

    `test_examples` is the size of the test set, which determines the noise of an accuracy.
    """
    return [
        *map(_sentence, summary.notes),
        *_trials(summary),
        *_luck(summary),
        *_same_proposal(summary),
        *_claims(summary),
        *_not_covered(summary),
        *_test_noise(summary, test_examples),
        *_sites(summary),
        *map(_sentence, summary.evidence.notes if summary.evidence else ()),
    ]


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:].rstrip('.')}."


def _trials(summary: Summary) -> Iterator[str]:
    sizes = {name: len(arm.trials) for name, arm in summary.arms.items()}
    if len(set(sizes.values())) > 1:
        counts = ", ".join(f"{arm_title(name)} {size}" for name, size in sizes.items())
        yield f"The arms had different numbers of trials, so their chances were not equal: {counts}."
    reasons = {name: found for name, arm in summary.arms.items() if (found := findings.reasons(arm))}
    if reasons:
        counts = ", ".join(f"{arm_title(name)} {found.total()} of {sizes[name]}" for name, found in reasons.items())
        first, _ = sum(reasons.values(), Counter[str]()).most_common(1)[0]
        why = shorten(" ".join(first.split()), 200).replace("`", "'")
        yield f"Trials failed: {counts}; most often with: `{why}`"


def _luck(summary: Summary) -> Iterator[str]:
    gaps = {name: findings.gap(arm) for name, arm in summary.arms.items()}
    known = {name: gap for name, gap in gaps.items() if math.isfinite(gap)}
    if known and max(known.values()) > 0:
        name, monitor = max(known, key=known.__getitem__), summary.monitor
        unit = monitor.unit or (summary.comparison_metric.loss_unit if monitor.is_val_loss else "")
        gap = f"{loss(known[name], sign=True)} {unit}".rstrip()
        yield (
            f"Search scores flatter: the largest gap between search and confirmation is that of {arm_title(name)}, "
            f"{gap}. Only confirmed scores are fit for comparing arms."
        )


def _same_proposal(summary: Summary) -> Iterator[str]:
    """Yield winners of two arms that are the same startup proposal, since searches share their seeds."""
    found = {
        name: (arm.winner.number, arm.rates)
        for name, arm in summary.arms.items()
        if arm.winner and arm.arm.dropout in ("search", "shared") and any(arm.rates.values())
    }
    for (one, of), (other, too) in itertools.combinations(found.items(), 2):
        if of == too:
            yield (
                f"The winners of {arm_title(one)} and {arm_title(other)} are the same proposal: trial {of[0]} of both, "
                "with the same rates. That two arms found these rates is one finding, not two."
            )


def _claims(summary: Summary) -> Iterator[str]:
    if summary.evidence is None or not summary.evidence.claims:
        return
    yield (
        f"Claims compare tuned configurations: each arm's winner has {_searched(summary)} of its own, so that a "
        "difference between two arms is not the effect of dropout alone."
    )
    yield (
        "The evidence is measured on one sample of held-out examples. Its intervals cover seeds only, so a difference "
        "is called consistent over seeds, and never shown."
    )
    yield (
        "P-values of claims are adjusted for the contrasts of one measure, not for there being "
        f"{len(summary.evidence.claims)} claims."
    )


def _searched(summary: Summary) -> str:
    keys = dict.fromkeys(key for arm in summary.arms.values() for key in arm.hyperparameters)
    *first, last = ("a learning rate", "a weight decay", *keys)
    return f"{', '.join(first)} and {last}"


def _not_covered(summary: Summary) -> Iterator[str]:
    if not summary.contrasts:
        return
    if summary.redraws_split:
        yield "Each seed has its own split into training and validation set. Intervals do not cover another search."
        return
    yield (
        "All models share one split into training and validation set, that of your data. The answer holds for this "
        "split: intervals do not cover another split or another search. If the split was drawn at random, run again "
        "with another one to see whether the answer stays."
    )


def _test_noise(summary: Summary, test_examples: int | None) -> Iterator[str]:
    tested = findings.tested(summary)
    if not tested or not on_test(summary):
        return
    accuracy = max(findings.test_acc(arm).mean for arm in tested.values())
    if test_examples and summary.comparison_metric.percent:
        error = math.sqrt(accuracy * (1 - accuracy) / test_examples)
        yield (
            f"An accuracy of {percent(accuracy)} % on {test_examples} test examples has a standard error of "
            f"{100 * error:.2f} points from the choice of the examples alone."
        )


def _sites(summary: Summary) -> Iterator[str]:
    for site in summary.sites:
        if not site.controllable:
            why = site.reason.rstrip(".") or "it cannot be controlled"
            rate = "" if math.isnan(site.rate) else f" of {site.rate:.2f}"
            yield f"The site {site.name} kept its own rate{rate}: {why}."
