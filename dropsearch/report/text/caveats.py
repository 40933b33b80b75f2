"""What the numbers of a run do not say, or say only with a warning."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

from dropsearch.core.records import ArmOutcome, Summary
from dropsearch.report import findings
from dropsearch.report.bands import finite
from dropsearch.report.text.numbers import percent, shorten
from dropsearch.report.text.score_scale import scores as judged_scores
from dropsearch.report.text.verdict import on_test
from dropsearch.stats.means import minimum_seeds


def caveats(summary: Summary, test_examples: int | None = None) -> list[str]:
    """One sentence or two for each caveat that the numbers raise, the gravest first.

    `test_examples` is the size of the test set, from which the noise of one accuracy follows.
    """
    return [
        *_interruption(summary),
        *map(_sentence, summary.notes),
        *_trials(summary),
        *_seeds(summary),
        *_luck(summary),
        *without_dropout(summary),
        *_same_proposal(summary),
        *_claims(summary),
        *_openings(summary),
        *_test_noise(summary, test_examples),
        *_sites(summary),
        *map(_sentence, summary.evidence.notes if summary.evidence else ()),
    ]


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:].rstrip('.')}."


def _interruption(summary: Summary) -> Iterator[str]:
    if not summary.complete:
        yield "The run was interrupted: what follows is what was done until then."


def _trials(summary: Summary) -> Iterator[str]:
    sizes = {name: len(arm.trials) for name, arm in summary.arms.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in sizes.items())
        yield f"The arms had unequal numbers of trials, hence unequal chances: {listed}."
    for name, arm in summary.arms.items():
        reasons = findings.reasons(arm)
        if reasons:
            reason = shorten(" ".join(reasons.most_common(1)[0][0].split()), 200).replace("`", "'")
            yield f"{reasons.total()} of {sizes[name]} trials of {name} failed, most often with: `{reason}`"


def _openings(summary: Summary) -> Iterator[str]:
    again = {name: arm.test.openings for name, arm in summary.arms.items() if arm.test and arm.test.openings > 1}
    if again:
        listed = ", ".join(f"{name} {count} times" for name, count in again.items())
        yield (
            f"The study was continued after its test set had been opened ({listed} in all): p-values of a second look "
            "are too small if the first one had a say in looking again."
        )


def _seeds(summary: Summary) -> Iterator[str]:
    contrasts = findings.comparisons(summary)
    if contrasts:
        seeds = max(len(contrast.differences) for contrast in contrasts)
        needed = minimum_seeds(len(contrasts))
        if seeds < needed:
            yield (
                f"Few seeds: with {len(contrasts)} planned contrasts the exact test needs at least {needed} "
                f"paired seeds before it can show any difference, however large; this run has {seeds}."
            )
    for name, arm in summary.arms.items():
        scores = judged_scores(arm, summary.comparison_metric) if arm.test else ()
        diverged = len(scores) - len(finite(scores))
        if diverged:
            yield f"{diverged} of {len(scores)} seeds of {name}'s winner have no test score and are left out."


def _luck(summary: Summary) -> Iterator[str]:
    gaps = {name: findings.gap(arm) for name, arm in summary.arms.items()}
    known = {name: gap for name, gap in gaps.items() if math.isfinite(gap)}
    if known and max(known.values()) > 0:
        name = max(known, key=known.__getitem__)
        yield (
            f"Search scores flatter: the largest gap between search and confirmation is that of {name}, "
            f"{known[name]:+.4f} nats. Only confirmed scores are fit for comparing arms."
        )


def without_dropout(summary: Summary) -> Iterator[str]:
    """A sentence for each arm that searched rates and chose none: what sets it apart is not dropout."""
    for name, arm in summary.arms.items():
        rates = findings.rates(arm)
        if arm.arm.dropout == "off" or not rates or any(rates.values()):
            continue
        twin = next((other for other, outcome in summary.arms.items() if _is_twin(outcome, arm)), None)
        told = (
            f": it is the model of {twin}, so what sets the two apart is {_tuned(arm)} that each search came upon, "
            "not dropout; a larger study.n_trials brings them closer"
        )
        yield f"The dropout rates chosen for {name} are all zero{told if twin else ''}."


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
                f"The winners of {one} and {other} are the same proposal: trial {of[0]} of both, with the same rates. "
                "That two arms found these rates is one finding, not two."
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


def _tuned(arm: ArmOutcome) -> str:
    *first, last = ("the learning rate", "weight decay", *findings.hyperparameters(arm))
    return f"{', '.join(first)} and {last}"


def _is_twin(other: ArmOutcome, arm: ArmOutcome) -> bool:
    return other.arm.dropout == "off" and other.arm.batchnorm == arm.arm.batchnorm


def _test_noise(summary: Summary, test_examples: int | None) -> Iterator[str]:
    tested = findings.tested(summary)
    if not tested or not on_test(summary):
        return
    yield (
        "Intervals cover the luck of seeds (initial weights, batch order, masks), not that of another test set "
        "or another split."
    )
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
