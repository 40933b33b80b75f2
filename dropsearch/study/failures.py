"""Failed trials of a study: which are repeated, and when they end a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dropsearch.core.errors import RunError
from dropsearch.core.records import TrialResult
from dropsearch.study.store import StudyStore

DIVERGED = "diverged"
"""Prefix of the reason of a trial with non-finite metrics; repeating such a trial gives the same result."""
MIN_FAILURES = 5
"""A run stops if the first trials of a study, at least this many, all fail for the same reason."""


def release_invalid(store: StudyStore, is_valid: Callable[[TrialResult], bool]) -> None:
    """Free the keys of trials whose results are no longer valid: they failed, or their checkpoints are missing."""
    invalid = [result for result in store.results() if not is_valid(result)]
    if invalid:
        reasons = {True: "it failed", False: "its checkpoint is missing"}
        store.release({result.spec.number: reasons[result.state == "FAIL"] for result in invalid})


def may_succeed(result: TrialResult) -> bool:
    """Return whether repeating a failed trial may succeed; a diverged trial diverges again."""
    return result.state == "FAIL" and not result.interrupted and not result.reason.startswith(DIVERGED)


def common_failure(results: Sequence[TrialResult]) -> RunError | None:
    """Return an error if there are `MIN_FAILURES` results or more and all failed for the same reason, else None."""
    reasons = {result.reason.split(":")[0] for result in results}
    if len(results) < MIN_FAILURES or len(reasons) > 1 or any(result.state != "FAIL" for result in results):
        return None
    arm = results[0].spec.arm
    return RunError(f"the first {len(results)} trials of arm {arm} all failed for the same reason: {results[0].reason}")
