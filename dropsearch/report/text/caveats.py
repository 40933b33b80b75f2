"""Warnings of the first screen, and caveats of the report."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from dropsearch.core.records import Confirmed, Summary, TrialResult, arm_title, best_arm
from dropsearch.report import findings
from dropsearch.report.measured_values import finite
from dropsearch.report.numbers import loss, percent, shorten
from dropsearch.report.numbers import scores as judged_scores
from dropsearch.report.text.verdict import MOST_RATES, listed, on_test, short_names
from dropsearch.stats.shown import minimum_seeds

ONE_SIDED = 0.25
"""Difference between the shares of failed trials of two arms from which their chances count as unequal."""
FIRST_POINTS = 2
"""Number of initial trials of an arm that the sampler does not propose."""
NEAR_END = 0.98
"""Share of the highest rate above which a rate counts as the highest."""


def warnings(summary: Summary) -> list[str]:
    """Return a sentence for each interruption, repeated test, failure, too few seeds and uncovered variation."""
    return [
        *_interrupted(summary),
        *_openings(summary),
        *_failed_retrainings(summary),
        *_one_sided(summary),
        *_few_seeds(summary),
        *_missing_luck(summary),
        *_seeds(summary),
        *_constant(summary),
        *_hardly_searched(summary),
        *_at_the_end(summary),
    ]


def _interrupted(summary: Summary) -> Iterator[str]:
    if not summary.complete:
        yield "Provisional: the run was interrupted, and this is what was done until then."


def _openings(summary: Summary) -> Iterator[str]:
    again = {name: arm.test.openings for name, arm in summary.arms.items() if arm.test and arm.test.openings > 1}
    if again:
        listed = ", ".join(f"{arm_title(name)} {count} times" for name, count in again.items())
        yield (
            f"The test set was opened more than once ({listed}): p-values are too small if the first look had a say "
            "in looking again."
        )


def _failed_retrainings(summary: Summary) -> Iterator[str]:
    for name, outcome in summary.arms.items():
        for rank, confirmed in enumerate(outcome.confirmed, start=1):
            if confirmed.failed:
                yield _left_out(name, rank, confirmed)


def _left_out(name: str, rank: int, confirmed: Confirmed) -> str:
    failed = confirmed.failed
    why = shorten(" ".join((failed[0].reason or "no reason recorded").split()).rstrip("."), 120)
    again = "" if _all_diverged(failed) else "; the same command tries it again"
    return (
        f"Trial {confirmed.number} of {arm_title(name)} (number {rank} of its search) cannot win: {len(failed)} of "
        f"{len(confirmed.results)} retrainings failed ({why}){again}."
    )


def _all_diverged(failed: Sequence[TrialResult]) -> bool:
    return all(result.reason.startswith("diverged") for result in failed)


def _one_sided(summary: Summary) -> Iterator[str]:
    counts = {name: (findings.states(arm)["FAIL"], len(arm.trials)) for name, arm in summary.arms.items()}
    shares = {name: failed / trials for name, (failed, trials) in counts.items() if trials}
    if shares and max(shares.values()) - min(shares.values()) >= ONE_SIDED:
        listed = ", ".join(f"{arm_title(name)} {failed} of {trials}" for name, (failed, trials) in counts.items())
        failed = [trial for arm in summary.arms.values() for trial in arm.trials if trial.state == "FAIL"]
        again = "; the same command with study.retry_failed=true trains them again"
        yield (
            f"The arms had unequal chances, since trials failed on one side: {listed}"
            f"{'' if _all_diverged(failed) else again}."
        )


def _few_seeds(summary: Summary) -> Iterator[str]:
    contrasts = findings.comparisons(summary)
    seeds = max((len(contrast.differences) for contrast in contrasts), default=0)
    needed = minimum_seeds(max(len(contrasts), 1))
    if 0 < seeds < needed and not findings.missing_luck(summary):
        yield (
            f"With {seeds} {'seed' if seeds == 1 else 'seeds'} and {len(contrasts)} planned "
            f"{'contrast' if len(contrasts) == 1 else 'contrasts'} no difference can be shown, however large: set "
            f"confirm.seeds={needed} or more."
        )


def _missing_luck(summary: Summary) -> Iterator[str]:
    missing = findings.missing_luck(summary)
    if missing:
        yield (
            f"No difference can be shown in this run: seeds leave out the luck of {listed(missing)}, and so do the "
            "intervals."
        )


def _constant(summary: Summary) -> Iterator[str]:
    """Yield a sentence if the monitored metric or the comparison metric is constant."""
    arms = summary.arms.values()
    chosen = [value for arm in arms for value in findings.objectives(arm)]
    monitored = "validation loss" if summary.monitor.is_val_loss else summary.monitor.name
    if len(chosen) > 1 and len(set(chosen)) == 1:
        yield f"The {monitored} is {loss(chosen[0])} in every trial, so it chose nothing: the simplest arm is named."
    compared = [value for arm in arms for value in judged_scores(arm, summary.comparison_metric)]
    if len(compared) > 1 and len(set(compared)) == 1 and on_test(summary):
        yield f"The {summary.comparison_metric.label} is the same for every model, so it does not compare the arms."


def _hardly_searched(summary: Summary) -> Iterator[str]:
    counts = {len(arm.trials) for arm in summary.arms.values() if arm.arm.dropout == "search" and arm.trials}
    if summary.complete and counts and max(counts) <= FIRST_POINTS:
        first = "the typical rates" if max(counts) == 1 else "the typical rates and no dropout"
        yield f"With {max(counts)} {'trial' if max(counts) == 1 else 'trials'} an arm only {first} were tried."


def _at_the_end(summary: Summary) -> Iterator[str]:
    """Yield a sentence if rates of the recommended arm are at the upper end of their range."""
    name, high = best_arm(summary.arms), summary.config.get("space", {}).get("high")
    if name is None or high is None or summary.arms[name].arm.dropout not in ("search", "shared"):
        return
    sites = [site for site, rate in findings.rates(summary.arms[name]).items() if rate >= NEAR_END * high > 0]
    if sites:
        names = listed(short_names(sites)) if len(sites) <= MOST_RATES else f"{len(sites)} sites"
        found = f"The rate of {names} is" if len(sites) == 1 else f"The rates of {names} are"
        yield f"{found} at the upper end of the range, {high:g}: higher ones were not tried (space.high)."


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
        "The evidence is measured on one sample of held-out examples. Its intervals cover seeds only, so a difference "
        "is called consistent over seeds, and never shown."
    )
    yield (
        "P-values of claims are adjusted for the contrasts of one measure, not for there being "
        f"{len(summary.evidence.claims)} claims."
    )


def _searched(summary: Summary) -> str:
    keys = dict.fromkeys(key for arm in summary.arms.values() for key in findings.hyperparameters(arm))
    *first, last = ("a learning rate", "a weight decay", *keys)
    return f"{', '.join(first)} and {last}"


def _not_covered(summary: Summary) -> Iterator[str]:
    if not findings.comparisons(summary):
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
