"""Which trial holds each place of a study: kept up to date with each trial, so that nobody counts all of them again."""

from __future__ import annotations

from collections.abc import Mapping

TrialKey = tuple[int, ...]
"""What a trial is for, by the names of `store.TRIAL_KEYS`: (index,) in a search. Each is filled once."""


class Claims:
    """The trials that count for each place; the first of them holds it."""

    def __init__(self) -> None:
        self._counting: dict[TrialKey, set[int]] = {}
        self._interrupted: dict[TrialKey, set[int]] = {}
        self._holders: dict[TrialKey, int] = {}
        self.freed = 0
        """How often a place has become free."""

    @property
    def holders(self) -> Mapping[TrialKey, int]:
        """The number of the trial that holds each place which is not free."""
        return self._holders

    def set(self, number: int, trial_key: TrialKey | None, *, counts: bool, interrupted: bool) -> None:
        """Take in whether a trial counts for its place, or had begun and was interrupted."""
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
        """Return the number of the last trial of a place that was interrupted."""
        return max(self._interrupted.get(trial_key, ()), default=None)
