"""What a reader must know before the answer is used: it stands in the first screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dropsearch.core.records import Confirmed, Summary, TrialResult, arm_title
from dropsearch.report import findings
from dropsearch.report.text.numbers import shorten
from dropsearch.report.text.verdict import listed
from dropsearch.stats.means import minimum_seeds

ONE_SIDED = 0.25
"""Where the share of failed trials of two arms differs by this or more, their chances were not the same."""


def warnings(summary: Summary) -> list[str]:
    """Return a sentence for each of: an interruption, a second opening, failures, too few seeds, a missing source."""
    return [
        *_interrupted(summary),
        *_openings(summary),
        *_failed_retrainings(summary),
        *_one_sided(summary),
        *_few_seeds(summary),
        *_missing_luck(summary),
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
