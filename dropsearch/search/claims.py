"""Which trial holds each place of a study: kept up to date with each trial, so that nobody counts all of them again."""

from __future__ import annotations

from collections.abc import Mapping

Place = tuple[int, ...]
"""What a trial is for, by the names of `ledger.PLACES`: (index,) in a search. Each is filled once."""


class Claims:
    """The trials that count for each place; the first of them holds it."""

    def __init__(self) -> None:
        self._counting: dict[Place, set[int]] = {}
        self._interrupted: dict[Place, set[int]] = {}
        self._holders: dict[Place, int] = {}
        self.freed = 0
        """How often a place has become free."""

    @property
    def holders(self) -> Mapping[Place, int]:
        """The number of the trial that holds each place which is not free."""
        return self._holders

    def set(self, number: int, place: Place | None, *, counts: bool, ended: bool) -> None:
        """Take in whether a trial counts for its place; one that ended and does not was interrupted."""
        if place is None:
            return
        counting = self._counting.setdefault(place, set())
        interrupted = self._interrupted.setdefault(place, set())
        (counting.add if counts else counting.discard)(number)
        (interrupted.add if ended and not counts else interrupted.discard)(number)
        if counting:
            self._holders[place] = min(counting)
        elif self._holders.pop(place, None) is not None:
            self.freed += 1

    def interrupted(self, place: Place) -> int | None:
        """Return the number of the last trial of a place that was interrupted."""
        return max(self._interrupted.get(place, ()), default=None)
