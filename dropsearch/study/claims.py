"""The trial that holds each key of a study, updated incrementally."""

from __future__ import annotations

from collections.abc import Mapping

TrialKey = tuple[int, ...]
"""Key of a trial, with the fields of `trial_entry.TRIAL_KEYS`: `(index,)` in a search. One trial counts for a key."""


class Claims:
    """The trials that count for each key; the first of them holds it."""

    def __init__(self) -> None:
        self._counting: dict[TrialKey, set[int]] = {}
        self._interrupted: dict[TrialKey, set[int]] = {}
        self._holders: dict[TrialKey, int] = {}
        self.freed = 0
        """Number of times that a key became free."""

    @property
    def holders(self) -> Mapping[TrialKey, int]:
        """Number of the trial that holds each key; free keys are absent."""
        return self._holders

    def set(self, number: int, trial_key: TrialKey | None, *, counts: bool, interrupted: bool) -> None:
        """Update whether a trial counts for its key, or was interrupted after its start."""
        if trial_key is None:
            return
        counting = self._counting.setdefault(trial_key, set())
        left = self._interrupted.setdefault(trial_key, set())
        (counting.add if counts else counting.discard)(number)
        (left.add if interrupted else left.discard)(number)
        if counting:
            self._holders[trial_key] = min(counting)
        elif self._holders.pop(trial_key, None) is not None:
            self.freed += 1

    def interrupted(self, trial_key: TrialKey) -> int | None:
        """Return the number of the last interrupted trial of a key, or None."""
        return max(self._interrupted.get(trial_key, ()), default=None)
