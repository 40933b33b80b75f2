"""What the numbers of a run do not say, or say only with a warning."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from dropsearch.core.records import Summary, arm_title
from dropsearch.report import findings
from dropsearch.report.bands import finite
from dropsearch.report.text.numbers import percent, shorten
from dropsearch.report.text.score_scale import scores as judged_scores
from dropsearch.report.text.verdict import on_test


def caveats(summary: Summary, test_examples: int | None = None) -> list[str]:
    """One sentence or two for each caveat that the numbers raise, the gravest first.

    `test_examples` is the size of the test set, from which the noise of one accuracy follows.
    """
    return [
        *map(_sentence, summary.notes),
        *_trials(summary),
        *_seeds(summary),
        *_luck(summary),
        *_same_proposal(summary),
        *_claims(summary),
        *_test_noise(summary, test_examples),
        *_sites(summary),
        *map(_sentence, summary.evidence.notes if summary.evidence else ()),
    ]


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:].rstrip('.')}."


def _trials(summary: Summary) -> Iterator[str]:
    sizes = {name: len(arm.trials) for name, arm in summary.arms.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{arm_title(name)} {size}" for name, size in sizes.items())
        yield f"The arms had unequal numbers of trials, hence unequal chances: {listed}."
    for name, arm in summary.arms.items():
        reasons = findings.reasons(arm)
        if reasons:
            reason = shorten(" ".join(reasons.most_common(1)[0][0].split()), 200).replace("`", "'")
            yield f"{reasons.total()} of {sizes[name]} trials of {arm_title(name)} failed, most often with: `{reason}`"


def _seeds(summary: Summary) -> Iterator[str]:
    for name, arm in summary.arms.items():
        scores = judged_scores(arm, summary.comparison_metric) if arm.test else ()
        diverged = len(scores) - len(finite(scores))
        if diverged:
            yield (
                f"{diverged} of {len(scores)} seeds of the winner of {arm_title(name)} have no test score and are left "
                "out."
            )


def _luck(summary: Summary) -> Iterator[str]:
    gaps = {name: findings.gap(arm) for name, arm in summary.arms.items()}
    known = {name: gap for name, gap in gaps.items() if math.isfinite(gap)}
    if known and max(known.values()) > 0:
        name = max(known, key=known.__getitem__)
        yield (
            f"Search scores flatter: the largest gap between search and confirmation is that of {arm_title(name)}, "
            f"{known[name]:+.4f} nats. Only confirmed scores are fit for comparing arms."
        )


def _same_proposal(summary: Summary) -> Iterator[str]:
    """Searches share their seeds: what two of them found may be one proposal, made in both before either had learnt."""
    found = {
        name: (arm.winner.number, findings.rates(arm))
        for name, arm in summary.arms.items()
        if arm.winner and arm.arm.dropout in ("search", "shared") and any(findings.rates(arm).values())
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
        "P-values of claims are adjusted for the contrasts of one measure, not for there being "
        f"{len(summary.evidence.claims)} claims."
    )


def _searched(summary: Summary) -> str:
    keys = dict.fromkeys(key for arm in summary.arms.values() for key in findings.hyperparameters(arm))
    *first, last = ("a learning rate", "a weight decay", *keys)
    return f"{', '.join(first)} and {last}"


def _test_noise(summary: Summary, test_examples: int | None) -> Iterator[str]:
    tested = findings.tested(summary)
    if not tested or not on_test(summary):
        return
    yield "Intervals do not cover the luck of another split of the training data or of another search."
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
