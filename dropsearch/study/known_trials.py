"""The state of a study in memory: its trials, which of them count, and heartbeats of processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any, TypeVar

from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError  # comes with optuna

from dropsearch.core import processes
from dropsearch.core.records import INTERRUPTED, TrialPhase
from dropsearch.core.repetition import repeating
from dropsearch.study import trial_entry
from dropsearch.study.readable_rates import ReadableRates
from dropsearch.study.reconnect import patiently
from dropsearch.study.shadow_study import Shadow
from dropsearch.study.trial_entry import TrialKey

SILENCE = 90.0
"""Seconds without a heartbeat after which a process on another machine counts as dead."""
LONGEST_LOOK = 15.0
"""Maximum number of seconds of silence that one read adds, since this process itself may have been suspended."""
FLUSH = 20.0
"""Seconds between heartbeats, which are written with the curves of running trials."""
LATE = 1.5 * FLUSH
"""Seconds after which the heartbeat thread writes instead, because training is in a long step."""
_LEASE = "lease."
"""Prefix of the study's heartbeat attributes."""


def sign() -> dict[str, Any]:
    """Return a new heartbeat of this process as an attribute of the study."""
    return {f"{_LEASE}{processes.this_process()}": round(time.time())}


def signs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the last heartbeat of each process from the attributes of the study."""
    return {name.removeprefix(_LEASE): sign for name, sign in attrs.items() if name.startswith(_LEASE)}


class Silence:
    """Time without heartbeats of other processes, measured by this process's clock."""

    def __init__(self) -> None:
        self._signs: dict[str, Any] = {}
        self._seconds: dict[str, float] = {}
        self._looked = time.monotonic()

    def look(self, signs: Mapping[str, Any], owners: Iterable[str]) -> None:
        """Update with the last heartbeats by process.

        Args:
            signs: Values that change with each heartbeat.
        """
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, LONGEST_LOOK), now
        before, self._seconds = self._seconds, {}
        for owner in owners:
            is_same = owner in before and self._signs.get(owner) == signs.get(owner)
            self._seconds[owner] = before[owner] + passed if is_same else 0.0
        self._signs = {owner: signs.get(owner) for owner in self._seconds}

    def of(self, owner: str) -> float:
        """Return how many seconds a process has been silent."""
        return self._seconds.get(owner, 0.0)


@contextmanager
def heartbeat(renewals: Sequence[Callable[[], None]]) -> Iterator[None]:
    """Write heartbeats while the context lasts, also during steps that take minutes."""

    def beat() -> None:
        for renew in renewals:
            # Training uses the same storage and reports its errors.
            with suppress(OSError, StorageInternalError, SQLAlchemyError):
                renew()

    # A storage that does not answer keeps no run from ending.
    with repeating(beat, LATE / 4, "heartbeat", waits=False):
        yield


FASTER = "another process was faster"
"""Reason of a trial that was withdrawn before its start."""
AGE, COMPANY = 3.0, 60.0
"""Seconds after which trials of other processes are read again before an `ask`; and seconds after the last trial of
another process in which they are read before each `ask`, so that two processes do not start the same trials."""
_PREFIX = f"{INTERRUPTED}."
_T = TypeVar("_T")


class Claims:
    """The trials that count for each key; the first of them holds it."""

    def __init__(self) -> None:
        self._counting: dict[TrialKey, set[int]] = {}
        self._interrupted: dict[TrialKey, set[int]] = {}
        self.holders: dict[TrialKey, int] = {}
        """Number of the trial that holds each key; free keys are absent."""
        self.freed = 0
        """Number of times that a key became free."""

    def set(self, number: int, trial_key: TrialKey | None, *, counts: bool, interrupted: bool) -> None:
        """Update whether a trial counts for its key, or was interrupted after its start."""
        if trial_key is None:
            return
        counting = self._counting.setdefault(trial_key, set())
        left = self._interrupted.setdefault(trial_key, set())
        (counting.add if counts else counting.discard)(number)
        (left.add if interrupted else left.discard)(number)
        if counting:
            self.holders[trial_key] = min(counting)
        elif self.holders.pop(trial_key, None) is not None:
            self.freed += 1

    def interrupted(self, trial_key: TrialKey) -> int | None:
        """Return the number of the last interrupted trial of a key, or None."""
        return max(self._interrupted.get(trial_key, ()), default=None)


class KnownTrials:
    """The trials of a study as of its last read, and the keys that they count for."""

    def __init__(self, bulk: ReadableRates, name: str, phase: TrialPhase) -> None:
        self._bulk, self._name = bulk, name
        self._phase: TrialPhase = phase
        self.seen = Shadow(name)
        """The trials, as an in-memory study for samplers and pruners."""
        self.claims = Claims()
        self.ended_elsewhere: set[int] = set()
        """Numbers of counting trials that other processes ended."""
        self._interrupted: dict[int, str] = {}
        self._stopped: set[int] = set()
        """The trials whose own result says that they were interrupted."""
        self._silence = Silence()
        self._looked, self._met = -math.inf, -math.inf

    def _do(self, act: Callable[[], _T]) -> _T:
        return patiently(self._name, act)

    def look(self) -> None:
        """Read changes by other processes: each time while others work on the study, else every `AGE` seconds."""
        now = time.monotonic()
        if now - self._looked > AGE or now - self._met < COMPANY:
            self.refresh()

    def refresh(self) -> None:
        """Read changes by other processes."""
        trials = self._do(self._bulk.look)
        # Read after the trials, because an interruption is noted before the trial's state changes.
        attrs = self._do(self._bulk.attrs)
        self._looked = time.monotonic()
        this = processes.this_process()
        if any(trial.state == TrialState.RUNNING and trial_entry.owner(trial) != this for trial in trials):
            self._met = self._looked
        before = self._interrupted
        self._interrupted = {
            int(name.removeprefix(_PREFIX)): why for name, why in attrs.items() if name.startswith(_PREFIX) and why
        }
        self.take_in(trials)
        self.take_in([self.seen.get(number) for number in before.keys() ^ self._interrupted if number in self.seen])
        owners = {trial_entry.owner(trial) for trial in self.seen.of(TrialState.RUNNING)}
        self._silence.look(signs(attrs), owners)

    def take_in(self, trials: Iterable[FrozenTrial]) -> None:
        """Update the state with trials that were read or written."""
        for trial in trials:
            self.seen.put(trial)
            ended = trial.state in trial_entry.ENDED
            if ended and trial_entry.is_stopped(trial):
                self._stopped.add(trial.number)
            counts = (ended or trial.state == TrialState.RUNNING) and self._counts(trial)
            began = self._interrupted.get(trial.number) != FASTER
            is_others = ended and counts and trial_entry.owner(trial) != processes.this_process()
            (self.ended_elsewhere.add if is_others else self.ended_elsewhere.discard)(trial.number)
            self.claims.set(
                trial.number,
                trial_entry.key(trial, self._phase),
                counts=counts,
                interrupted=ended and not counts and began,
            )

    def _counts(self, trial: FrozenTrial) -> bool:
        """Return whether a trial was not interrupted."""
        return trial.number not in self._interrupted and trial.number not in self._stopped

    def counting(self) -> list[FrozenTrial]:
        """Return the trials that ended and were not interrupted, by number."""
        ended = self.seen.of(*trial_entry.ENDED)
        return [trial for trial in ended if trial_entry.RESULT in trial.user_attrs and self._counts(trial)]

    def release(self, why: Mapping[int, str]) -> None:
        """Store reasons by number why trials do not count, which frees their keys; an empty reason revokes this."""
        self._do(lambda: self._bulk.write({}, {f"{_PREFIX}{number}": reason for number, reason in why.items()}))
        self._interrupted = {n: reason for n, reason in {**self._interrupted, **why}.items() if reason}
        self.take_in([self.seen.get(number) for number in why])

    def is_noted_interrupted(self, number: int, attrs: Mapping[str, object]) -> bool:
        """Return whether the study's attributes mark a trial as interrupted."""
        return bool(attrs.get(f"{_PREFIX}{number}"))

    def last_interrupted(self, trial_key: TrialKey) -> FrozenTrial | None:
        """Return the last trial of a key that was interrupted after its start."""
        number = self.claims.interrupted(trial_key)
        return None if number is None else self.seen.get(number)

    def is_gone(self, owner: str) -> bool:
        """Return whether a process has ended, or has sent no heartbeat from another machine for `SILENCE` seconds."""
        if processes.is_dead(owner):
            return True
        return not processes.is_here(owner) and self._silence.of(owner) > SILENCE

    def is_tracked_by_its_owner(self, trial: FrozenTrial) -> bool:
        """Return whether another living process will write an ended trial to the tracker."""
        owner, ended = trial_entry.owner(trial), trial.datetime_complete
        if trial.user_attrs.get(trial_entry.WORKER) or owner == processes.this_process() or ended is None:
            return False
        if processes.is_dead(owner):
            return False
        return processes.is_here(owner) or datetime.now(ended.tzinfo) - ended < timedelta(seconds=SILENCE)
