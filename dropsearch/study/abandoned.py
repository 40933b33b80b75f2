"""Ending trials that dead processes left running, so that their keys become free."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from optuna.trial import FrozenTrial, TrialState

from dropsearch._compat.optuna_bulk import Ending
from dropsearch.core import processes
from dropsearch.core.printable import tell
from dropsearch.core.records import TrialPhase, TrialResult
from dropsearch.study import trial_entry
from dropsearch.study.known_trials import KnownTrials
from dropsearch.study.readable_rates import ReadableRates
from dropsearch.study.reconnect import patiently
from dropsearch.study.trial_entry import TrialKey

Failed = Callable[[FrozenTrial, str], TrialResult]
"""Returns the result for a trial that crashed its process, given the reason."""


class Abandoned:
    """The trials of a study whose processes have died.

    Args:
        crash_of: Returns how a dead process crashed, or an empty string if unknown.
    """

    def __init__(
        self,
        known: KnownTrials,
        bulk: ReadableRates,
        name: str,
        *,
        arm: str,
        phase: TrialPhase,
        crash_of: Callable[[str], str],
    ) -> None:
        self._known, self._bulk, self._name = known, bulk, name
        self._arm, self._crash_of = arm, crash_of
        self._phase: TrialPhase = phase
        self.suspects: set[TrialKey] = set()
        """Keys of trials that trained together in a process that crashed; one of them is the cause."""

    def close(self, ours: Iterable[int], failed: Failed | None) -> int:
        """End the trials of dead processes and return how many there were.

        Args:
            failed: Makes the results of crashed trials; without it, these trials are not changed.
        """
        self._known.refresh()
        training = set(ours)
        running = [trial for trial in self._known.seen.of(TrialState.RUNNING) if trial.number not in training]
        dead = {owner for owner in {trial_entry.owner(trial) for trial in running} if self._is_gone(owner)}
        crashes = {owner: crash for owner in dead if (crash := self._crash_of(owner))}
        if failed is None:
            dead -= crashes.keys()
        ids = [trial._trial_id for trial in running if trial_entry.owner(trial) in dead]
        trials = patiently(self._name, lambda: self._bulk.read(ids))
        # An interrupted write may have stored the result without the state.
        whole = [trial for trial in trials if trial_entry.RESULT in trial.user_attrs]
        self._end(
            Ending(trial, *trial_entry.outcome(trial_entry.read(trial, self._arm, self._phase), trial))
            for trial in whole
        )
        lost = [trial for trial in trials if trial_entry.RESULT not in trial.user_attrs]
        for owner, crash in crashes.items():
            theirs = [trial for trial in lost if trial_entry.owner(trial) == owner]
            if failed is not None and theirs:
                self._settle_crash(theirs, crash, failed)
        lost = [trial for trial in lost if self._known.seen.get(trial.number).state == TrialState.RUNNING]
        if lost:
            self.interrupt(dict.fromkeys((trial.number for trial in lost), "its process died"))
        return len(trials)

    def _is_gone(self, owner: str) -> bool:
        # A running trial of this process that it does not train is lost.
        return owner == processes.this_process() or self._known.is_gone(owner)

    def _settle_crash(self, lost: Sequence[FrozenTrial], crash: str, failed: Failed) -> None:
        """Fail the trial that crashed its process; if there were several, mark each to be trained alone."""
        numbers = ", ".join(str(trial.number) for trial in lost)
        if len(lost) > 1:
            message = (
                f"one of the trials {numbers} of {self._name} crashed the last run: {crash}; each is now trained alone"
            )
            keys = (trial_entry.key(trial, self._phase) for trial in lost)
            self.suspects |= {key for key in keys if key is not None}
        else:
            message = f"trial {numbers} of {self._name} crashed the last run and has failed: {crash}"
            entry = trial_entry.written(failed(lost[0], f"its process died: {crash}"))
            self._end([Ending(lost[0], TrialState.FAIL, user_attrs={trial_entry.RESULT: entry})])
        tell(message)

    def interrupt(self, why: Mapping[int, str]) -> None:
        """End running trials as interrupted, with a reason by number."""
        # Release first: if this process dies in between, the key is free and the trial is found again.
        self._known.release(why)
        ended = self._end(Ending(self._known.seen.get(number), TrialState.FAIL) for number in why)
        # The process may still have been alive and have finished the result in the meantime.
        finished = [trial.number for trial in ended if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        if finished:
            self._known.release(dict.fromkeys(finished, ""))

    def _end(self, endings: Iterable[Ending]) -> list[FrozenTrial]:
        wanted = list(endings)
        if not wanted:
            return []
        ended = [trial for trial, _ in patiently(self._name, lambda: self._bulk.end(wanted))]
        self._known.take_in(ended)
        return ended
