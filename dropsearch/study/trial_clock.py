"""A clock that counts epochs, so that which trials there are does not depend on which of them end first."""

from __future__ import annotations

from collections.abc import Set


class TrialClock:
    """Says when each trial begins on a machine that trains a fixed number of trials at once, an epoch a tick.

    A trial knows the results that are there when it begins on this machine, in whatever order the trials end in
    reality. So engine, width, processes and load change nothing about what is proposed and pruned.

    Args:
        places: How many trials the machine trains at once.

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
        """The trial in each place, by index; one that has ended stays until the next one takes its place."""
        self._starts: list[int] = []
        self._durations: dict[int, int] = {}
        self._survived: dict[int, int] = {}
        self._late: set[int] = set()
        """The trials that some running trial may not know."""

    def survive(self, index: int, epochs: int) -> None:
        """Note that a trial has ended so many epochs and goes on."""
        self._survived[index] = max(epochs, self._survived.get(index, 0))

    def end(self, index: int, epochs: int) -> None:
        """Note how many epochs a trial took; one in which it failed counts, 0 if it failed before the first."""
        self._durations[index] = epochs

    def start(self, index: int) -> int | None:
        """Return the tick at which a trial begins; None if that depends on trials that are still running."""
        while len(self._starts) <= index:
            begun = self._next_start()
            if begun is None:
                return None
            self._forget_known(begun)
            self._late.add(len(self._starts))
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
        """The trials that have begun and not ended, by index."""
        return [each for each in self._places if each not in self._durations]

    def unknown(self, index: int) -> Set[int]:
        """Return the indices of the trials before or beside this one whose results it may not know."""
        start = self._starts[index]
        return {each for each in self._late if each != index and not self._is_known(each, start)}

    def _is_known(self, index: int, tick: int) -> bool:
        if index not in self._durations:
            return False
        end = self._end(index)
        # Whether another trial fails before its first epoch is not known at the tick at which it begins.
        return end < tick or (end == tick and self._durations[index] > 0)

    def _end(self, index: int) -> int:
        return self._starts[index] + self._durations[index]

    def _forget_known(self, tick: int) -> None:
        oldest = min((self._starts[each] for each in self.running if each < len(self._starts)), default=tick)
        self._late = {each for each in self._late if not self._is_known(each, oldest)}
