"""Warnings: sentences of the first screen that limit the answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from dropsearch.core.records import Comparison, Confirmed, Summary, TrialResult, arm_title, best_arm
from dropsearch.report import findings
from dropsearch.report.measured_values import finite
from dropsearch.report.numbers import loss, shorten
from dropsearch.report.text.contrast_phrases import idle_sites
from dropsearch.report.text.phrases import MOST_RATES, listed, on_test, short_names
from dropsearch.stats.comparisons import minimum_seeds

ONE_SIDED = 0.25
"""Difference between the shares of failed trials of two arms from which their chances count as unequal."""
FIRST_POINTS = 2
"""Number of initial trials of an arm that the sampler does not propose."""
FEW_FAILED = 2
"""Maximum number of configurations with failed retrainings that are named one by one."""
NEAR_END = 0.98
"""Share of the highest rate above which a rate counts as the highest."""


def warnings(summary: Summary) -> list[str]:
    """Return a sentence for each interruption, repeated test, failure, too few seeds and uncovered variation."""
    return [
        *_interrupted(summary),
        *_openings(summary),
        *_no_test(summary),
        *(f"{sentence}." for sentence in summary.overlaps),
        *_failed_retrainings(summary),
        *_one_sided(summary),
        *_unequal_arguments(summary),
        *_few_seeds(summary),
        *_missing_luck(summary),
        *_seeds(summary),
        *_constant(summary),
        *_hardly_searched(summary),
        *_at_the_end(summary),
        *_without_effect(summary),
    ]


def _interrupted(summary: Summary) -> Iterator[str]:
    if not summary.complete:
        yield "Provisional: the run was interrupted, and this is what was done until then."


def _openings(summary: Summary) -> Iterator[str]:
    again = {name: arm.test.openings for name, arm in summary.arms.items() if arm.test and arm.test.openings > 1}
    if again:
        each = ", ".join(f"{arm_title(name)} {count} times" for name, count in again.items())
        if len(again) == len(summary.arms) > 1 and len({*again.values()}) == 1:
            each = f"{next(iter(again.values()))} times for each arm"
        yield (
            f"The test set was opened more than once ({each}): p-values are too small if the first look had a say "
            "in looking again."
        )
    tested = {name: arm.test for name, arm in summary.arms.items() if arm.test}
    later = {name: test.after for name, test in tested.items() if test.openings == 1 and {*test.after} & {*tested}}
    if later:
        first = [name for name in tested if any(name in after for after in later.values())]
        yield (
            f"The test set was opened for {listed([*map(arm_title, later)])} after a run had shown the results of "
            f"{listed([*map(arm_title, first)])}: p-values are too small if those had a say in running it again."
        )


def _no_test(summary: Summary) -> Iterator[str]:
    if summary.contrasts and not on_test(summary):
        yield (
            "There is no test set: the validation set that chose the winners also compares them, which favors arms "
            "with more to choose from. A test set would judge them."
        )


def _failed_retrainings(summary: Summary) -> Iterator[str]:
    """Yield the configurations that cannot win: a sentence for each of up to `FEW_FAILED`, or one for all."""
    failed = {
        name: [(rank, each) for rank, each in enumerate(outcome.confirmed, start=1) if each.failed]
        for name, outcome in summary.arms.items()
    }
    if sum(map(len, failed.values())) <= FEW_FAILED:
        yield from (_left_out(name, rank, each) for name, found in failed.items() for rank, each in found)
        return
    counts = (
        f"{arm_title(name)} {len(found)} of {len(summary.arms[name].confirmed)}" for name, found in failed.items()
    )
    results = [result for found in failed.values() for _, each in found for result in each.failed]
    yield f"Configurations with a failed retraining cannot win: {', '.join(counts)} ({_why_failed(results)})."


def _left_out(name: str, rank: int, confirmed: Confirmed) -> str:
    return (
        f"Trial {confirmed.number} of {arm_title(name)} (number {rank} of its search) cannot win: "
        f"{len(confirmed.failed)} of {len(confirmed.results)} retrainings failed ({_why_failed(confirmed.failed)})."
    )


def _why_failed(failed: Sequence[TrialResult]) -> str:
    """Return the most frequent reason, and what repeats those that did not diverge."""
    return f"{_most_often(failed)}{'' if _all_diverged(failed) else '; the same command tries it again'}"


def _most_often(failed: Sequence[TrialResult]) -> str:
    """Return the most frequent reason."""
    reason, _ = Counter(result.reason or "no reason recorded" for result in failed).most_common(1)[0]
    return shorten(" ".join(reason.split()).rstrip("."), 120)


def _all_diverged(failed: Sequence[TrialResult]) -> bool:
    return all(result.reason.startswith("diverged") for result in failed)


def _one_sided(summary: Summary) -> Iterator[str]:
    counts = {name: (findings.states(arm)["FAIL"], len(arm.trials)) for name, arm in summary.arms.items()}
    shares = {name: failed / trials for name, (failed, trials) in counts.items() if trials}
    if shares and max(shares.values()) - min(shares.values()) >= ONE_SIDED:
        listed = ", ".join(f"{arm_title(name)} {failed} of {trials}" for name, (failed, trials) in counts.items())
        failed = [trial for arm in summary.arms.values() for trial in arm.trials if trial.state == "FAIL"]
        again = "; study.retry_failed=true trains them again, once the cause is removed"
        yield (
            f"The arms had unequal chances, since trials failed on one side: {listed} ({_most_often(failed)})"
            f"{'' if _all_diverged(failed) else again}."
        )


def _unequal_arguments(summary: Summary) -> Iterator[str]:
    own = summary.own_arguments
    for arguments in dict.fromkeys(own.values()):
        names = listed([arm_title(name) for name, each in own.items() if each == arguments])
        yield (
            f"By arm_args the module of {names} has {arguments}, unlike that of the arm without dropout: what they "
            "differ by is not the effect of dropout alone."
        )


def _few_seeds(summary: Summary) -> Iterator[str]:
    contrasts = summary.contrasts
    seeds = max((len(contrast.differences) for contrast in contrasts), default=0)
    needed = minimum_seeds(max(len(contrasts), 1))
    if 0 < seeds < needed and not findings.missing_luck(summary):
        yield (
            f"With {seeds} {'seed' if seeds == 1 else 'seeds'} and {len(contrasts)} planned "
            f"{'contrast' if len(contrasts) == 1 else 'contrasts'} no difference can be shown, however large: "
            f"{_for_seeds(summary, needed)}."
        )


def _for_seeds(summary: Summary, needed: int) -> str:
    """Return what gives a run a number of seeds."""
    if summary.config.get("budget"):
        return f"{needed} seeds need a larger budget or fewer arms"
    return f"set confirm.seeds={needed} or more"


def _missing_luck(summary: Summary) -> Iterator[str]:
    """Yield which differences cannot be shown: all, or those of some arms."""
    contrasts = summary.contrasts
    by_parts: dict[tuple[str, ...], list[Comparison]] = {}
    for contrast in contrasts:
        if contrast.missing:
            by_parts.setdefault(contrast.missing, []).append(contrast)
    for missing, found in by_parts.items():
        which = "in this run" if len(found) == len(contrasts) else f"between {_pairs(found)}"
        luck = f"{listed(missing)}{_remedy(missing)}"
        yield f"No difference can be shown {which}: intervals leave out the luck of {luck}."


def _remedy(missing: Sequence[str]) -> str:
    """Return what makes examples count; empty if they do."""
    of_examples = next((part for part in missing if part.endswith(" examples")), "")
    needs = "it is known for six or more, each with a finite loss, and a module that can be measured on a part of them"
    return f"; {needs}" if of_examples else ""


def _pairs(contrasts: Sequence[Comparison]) -> str:
    """Return the pairs of arms of contrasts; an arm that all of them have, against the others."""
    common = set.intersection(*({each.a, each.b} for each in contrasts))
    if len(contrasts) > 1 and len(common) == 1:
        (one,) = common
        others = [each.b if each.a == one else each.a for each in contrasts]
        return f"{arm_title(one)} and {' or '.join(map(arm_title, others))}"
    return ", ".join(f"{arm_title(each.a)} and {arm_title(each.b)}" for each in contrasts)


def _constant(summary: Summary) -> Iterator[str]:
    """Yield a sentence if the monitored metric or the comparison metric is constant."""
    arms = summary.arms.values()
    chosen = [value for arm in arms for value in findings.objectives(arm)]
    monitored = "validation loss" if summary.monitor.is_val_loss else summary.monitor.name
    if len(chosen) > 1 and len(set(chosen)) == 1:
        yield f"The {monitored} is {loss(chosen[0])} in every trial, so it chose nothing: the simplest arm is named."
    compared = [value for arm in arms for value in arm.scores(summary.comparison_metric)]
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
    sites = [site for site, rate in summary.arms[name].rates.items() if rate >= NEAR_END * high > 0]
    if sites:
        names = listed(short_names(sites)) if len(sites) <= MOST_RATES else f"{len(sites)} sites"
        found = f"The rate of {names} is" if len(sites) == 1 else f"The rates of {names} are"
        yield f"{found} at the upper end of the range, {high:g}: higher ones were not tried (space.high)."


def _without_effect(summary: Summary) -> Iterator[str]:
    """Yield the sites with a rate above 0 in a winner, whose rates do not change the loss."""
    idle: dict[str, None] = {}
    for name, outcome in summary.arms.items():
        if outcome.winner and idle_sites(summary, name):
            yield (
                f"The rates of {arm_title(name)} are above 0 only where they have no effect: its winner is a model "
                "without dropout, with a learning rate and weight decay of its own."
            )
        above = (site for site, rate in outcome.rates.items() if rate > 0)
        idle |= dict.fromkeys(site for site in above if site in summary.without_effect)
    if idle:
        names = listed(short_names([*idle])) if len(idle) <= MOST_RATES else f"{len(idle)} sites"
        rates = "The rate of" if len(idle) == 1 else "The rates of"
        yield f"{rates} {names} may be any: {summary.without_effect[next(iter(idle))]}."


def _seeds(summary: Summary) -> Iterator[str]:
    scores = {name: arm.scores(summary.comparison_metric) for name, arm in summary.arms.items() if arm.test}
    lacking = {name: len(found) - len(finite(found)) for name, found in scores.items()}
    counts = ", ".join(f"{arm_title(name)} {count} of {len(scores[name])}" for name, count in lacking.items() if count)
    if counts:
        yield f"Seeds whose winner has no finite test score are left out: {counts}."
