"""A virtual clock that counts epochs, so that proposed trials do not depend on which trials end first."""

from __future__ import annotations

from collections.abc import Set


class TrialClock:
    """Simulates a machine that trains a fixed number of trials at once, with one epoch per tick.

    A trial knows the results that exist when it starts on this virtual machine, regardless of the real order. Engine,
    width, processes and load therefore do not affect proposals and pruning.

    Example:
        >>> clock = TrialClock(2)
        >>> clock.start(0), clock.start(1)
        (0, 0)
        >>> clock.end(0, 3)
        >>> clock.start(2) is None  # trial 1 may end earlier
        True
        >>> clock.survive(1, 3)
        >>> clock.start(2), clock.unknown(2)
        (3, {1})
    """

    def __init__(self, places: int) -> None:
        self._count = places
        self._places: list[int] = []
        """Index of the trial in each place; an ended trial stays until the next one replaces it."""
        self._starts: list[int] = []
        self._durations: dict[int, int] = {}
        self._survived: dict[int, int] = {}
        self._ahead: set[int] = set()
        """Ended trials that have not started on this clock yet: those of an earlier run of the study."""
        self._late: set[int] = set()
        """Trials whose results some running trial must not know."""

    def survive(self, index: int, epochs: int) -> None:
        """Record that a trial has finished a number of epochs and continues."""
        self._survived[index] = max(epochs, self._survived.get(index, 0))

    def end(self, index: int, epochs: int) -> None:
        """Record the number of epochs of an ended trial, including a failed one; 0 if it failed before the first."""
        self._durations[index] = max(epochs, self._survived.get(index, 0))
        if index >= len(self._starts):
            self._ahead.add(index)

    def start(self, index: int) -> int | None:
        """Return the start tick of a trial, or None if it depends on running trials."""
        while len(self._starts) <= index:
            begun = self._next_start()
            if begun is None:
                return None
            self._forget_known(begun)
            self._late.add(len(self._starts))
            self._ahead.discard(len(self._starts))
            self._starts.append(begun)
        return self._starts[index]

    def _next_start(self) -> int | None:
        if len(self._places) < self._count:
            self._places.append(len(self._starts))
            return 0
        ended = [(self._end(each), place) for place, each in enumerate(self._places) if each in self._durations]
        if not ended:
            return None
        end, place = min(ended)
        if any(self._starts[each] + self._survived.get(each, 0) < end for each in self.running):
            return None
        self._places[place] = len(self._starts)
        return end

    @property
    def running(self) -> list[int]:
        """Indices of running trials."""
        return [each for each in self._places if each not in self._durations]

    def unknown(self, index: int) -> Set[int]:
        """Return the indices of earlier or simultaneous trials whose results this one must not know."""
        start = self._starts[index]
        return self._ahead | {each for each in self._late if each != index and not self._is_known(each, start)}

    def _is_known(self, index: int, tick: int) -> bool:
        if index not in self._durations:
            return False
        end = self._end(index)
        # A failure before the first epoch is not known at the trial's start tick.
        return end < tick or (end == tick and self._durations[index] > 0)

    def _end(self, index: int) -> int:
        return self._starts[index] + self._durations[index]

    def _forget_known(self, tick: int) -> None:
        oldest = min([tick, *(self._starts[each] for each in self.running if each < len(self._starts))])
        self._late = {each for each in self._late if not self._is_known(each, oldest)}
