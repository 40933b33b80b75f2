"""What is said of a run in which nothing was confirmed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dropsearch.core.records import Summary, TrialResult
from dropsearch.report import findings
from dropsearch.report.numbers import loss, shorten
from dropsearch.report.text.phrases import counted, monitored


def unconfirmed(summary: Summary) -> tuple[str, str]:
    """Return why no arm is recommended, and which arm leads in the search."""
    losses = {name: findings.search_loss(arm) for name, arm in summary.arms.items() if arm.best}
    first = (max if summary.monitor.mode == "max" else min)(losses, key=losses.__getitem__)
    failed = [result for arm in summary.arms.values() for each in arm.confirmed for result in each.failed]
    reason = "No arm can be recommended yet: no configuration was confirmed on all fresh seeds."
    if summary.complete and failed:
        why, _ = Counter(result.reason or "no reason recorded" for result in failed).most_common(1)[0]
        reason = (
            "No arm can be recommended: each confirmed configuration has a retraining that failed, most often with: "
            f"{shorten(' '.join(why.split()).rstrip('.'), 120)}. {_against(failed)}."
        )
    return (
        reason,
        f"In the search {summary.arms[first].arm.title} leads with {monitored(summary)} {loss(losses[first])}, but "
        "there the luckiest trial leads.",
    )


def _against(failed: Sequence[TrialResult]) -> str:
    """Return what to do about failed retrainings."""
    if all(result.reason.startswith("diverged") for result in failed):
        return "Lower learning rates (space.lr.high) or clipped gradients (trainer.gradient_clip_val=1) diverge less"
    return (
        "Remove the cause, then repeat the command, which trains them again (with study.allow_code_changes=true if "
        "your code changed)"
    )


def nothing(summary: Summary) -> tuple[str, str]:
    """Return that no trial was completed, and why."""
    trials = counted(sum(len(arm.trials) for arm in summary.arms.values()), "trial")
    first = "No trial was completed, so nothing can be said about dropout or BatchNorm."
    reasons = sum((findings.reasons(arm) for arm in summary.arms.values()), Counter[str]())
    if not reasons:
        pruned = f"Of {trials} none failed and all were pruned: set pruner=none, or more trainer.max_epochs."
        return first, pruned if any(arm.trials for arm in summary.arms.values()) else "None had ended yet."
    reason, _ = reasons.most_common(1)[0]
    why = shorten(" ".join(reason.split()).rstrip("."), 200)
    return first, f"Of {trials} {reasons.total()} failed, most often with: {why}."
