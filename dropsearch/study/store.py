"""The store of one Optuna study, with batched `ask`, `report` and `tell`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence, Set
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar

from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from dropsearch._compat.optuna_bulk import Ending
from dropsearch._compat.optuna_writes import bulk
from dropsearch.core import processes
from dropsearch.core.errors import RunError
from dropsearch.core.records import EpochMetrics, TrialPhase, TrialResult, TrialSpec
from dropsearch.study import known_trials, trial_entry
from dropsearch.study.abandoned import Abandoned, Failed
from dropsearch.study.algorithms import StudyMedianPruner
from dropsearch.study.known_trials import FASTER, KnownTrials
from dropsearch.study.proposals import Proposer, Wish
from dropsearch.study.readable_rates import ReadableRates
from dropsearch.study.reconnect import patiently
from dropsearch.study.search_space import Params
from dropsearch.study.studies import CODE_CHANGES, open_study, quiet_optuna
from dropsearch.study.trial_entry import TrialKey

_NOTE = "note."
_T = TypeVar("_T")


class StudyStore:
    """A study in which each trial stores its key, its process and, once ended, its whole curve.

    Reports and trackers read everything from the storage, so finished trials survive the process that trained them.
    Several processes may work on one study.

    Args:
        fingerprint: Names and plain values that must be equal to continue the study.
        repeat: Number of the repetition of the arm's search.
        crash_of: Returns how a dead process crashed, or an empty string if unknown.
        only_trains: Whether other processes track the results of this one.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        *,
        arm: str,
        phase: TrialPhase,
        fingerprint: Mapping[str, Any],
        allow_code_changes: bool = False,
        make_sampler: Callable[[int], BaseSampler] = RandomSampler,
        pruner: BasePruner | None = None,
        repeat: int = 1,
        crash_of: Callable[[str], str] = lambda _: "",
        only_trains: bool = False,
    ) -> None:
        self.arm, self.repeat = arm, repeat
        self.phase: TrialPhase = phase
        owner = {trial_entry.OWNER: processes.this_process()}
        self._owned = {**owner, trial_entry.WORKER: True} if only_trains else owner
        with quiet_optuna():
            self.study = open_study(storage, name, fingerprint, pruner, allow_code_changes)
            study_id = patiently(name, lambda: storage.get_study_id_from_name(name))
        self._bulk = ReadableRates(bulk(storage, study_id))
        self._pruner = pruner or NopPruner()
        self.known = KnownTrials(self._bulk, name, phase)
        self.seen, self.claims = self.known.seen, self.known.claims
        """The trials as an in-memory study, and the trial that holds each key, as of the last read."""
        with quiet_optuna():
            self._proposer = Proposer(self.seen, make_sampler, self._pruner)
        self._abandoned = Abandoned(self.known, self._bulk, name, arm=arm, phase=phase, crash_of=crash_of)
        self._open: dict[int, set[int]] = {}
        """The trials that this process trains, with their written epochs."""
        self._flushed = self._signed = time.monotonic()
        self.known.refresh()

    def _do(self, act: Callable[[], _T]) -> _T:
        return patiently(self.study.study_name, act)

    # -- ask, report, tell

    def ask(self, distributions: Mapping[str, BaseDistribution], wishes: Sequence[Wish]) -> list[FrozenTrial]:
        """Start trials for free keys in one write, except those that another process starts first.

        A trial is created with its parameters, key and process. If two processes start a trial with the same key, the
        later one sees the earlier one and withdraws. (Optuna's queue of waiting trials does not prevent this: two
        processes may take the same trial from an SQLite file.)
        """
        names = trial_entry.TRIAL_KEYS[self.phase]
        attrs = [{**dict(zip(names, wish.trial_key, strict=True)), **self._owned} for wish in wishes]
        with quiet_optuna():
            templates = self._proposer.templates(distributions, list(zip(wishes, attrs, strict=True)))
        created, crowded = self._do(lambda: self._bulk.create(templates))
        self.known.take_in(created)
        if crowded:
            self.known.refresh()
        holders = self.claims.holders
        ours = [trial for trial in created if holders.get(trial_entry.key(trial, self.phase) or ()) == trial.number]
        late = {trial.number for trial in created} - {trial.number for trial in ours}
        if late:
            self._abandoned.interrupt(dict.fromkeys(late, FASTER))
        self._open |= {trial.number: set() for trial in ours}
        return ours

    def report(
        self,
        reports: Sequence[tuple[TrialSpec, EpochMetrics]],
        unknown: Mapping[int, frozenset[int]] = MappingProxyType({}),
    ) -> list[bool]:
        """Record epoch metrics in memory; return for each trial whether it should be pruned.

        Args:
            unknown: By number of a trial, the trials that are as if they had just begun, for the pruner.
        """
        # Copying a study for each trial would cost the square of their number; the median needs the complete ones only.
        complete = cache(self.seen.complete)
        return [
            self._report(spec, metrics, unknown.get(spec.number, frozenset()), complete) for spec, metrics in reports
        ]

    def _report(
        self,
        spec: TrialSpec,
        metrics: EpochMetrics,
        unknown: frozenset[int],
        complete: Callable[[frozenset[int]], list[FrozenTrial]],
    ) -> bool:
        if self.seen.get(spec.number).state != TrialState.RUNNING:
            raise self._taken_away(spec)
        trial = self.seen.report(spec.number, metrics.epoch, metrics.objective)
        if isinstance(self._pruner, NopPruner):
            return False
        if isinstance(self._pruner, StudyMedianPruner):
            return self._pruner.prunes(trial, lambda: complete(unknown))
        return self._pruner.prune(self.seen.study(pruner=self._pruner, unknown=unknown), trial)

    def tell(self, results: Sequence[TrialResult]) -> None:
        """End trials, each with its whole curve, in one write.

        Raises:
            RunError: Another process considered this one dead and ended one of its trials, or the storage failed.
        """
        endings = [self._ending(result) for result in results]
        for result in results:
            del self._open[result.spec.number]
        ended = self._do(lambda: self._bulk.end(endings))
        self.known.take_in(trial for trial, _ in ended)
        noted = self._do(self._bulk.attrs)
        for result, (trial, was_running) in zip(results, ended, strict=True):
            is_ours = was_running or trial_entry.RESULT in trial.user_attrs
            if self.known.is_noted_interrupted(trial.number, noted) or not is_ours:
                raise self._taken_away(result.spec)

    def _ending(self, result: TrialResult) -> Ending:
        number = result.spec.number
        trial = self.seen.get(number)
        attrs = {trial_entry.RESULT: trial_entry.written(result)}
        return Ending(trial, *trial_entry.outcome(result, trial), self._unwritten(number), attrs, trial.system_attrs)

    def _unwritten(self, number: int) -> dict[int, float]:
        """Return the unwritten part of a trial's curve."""
        written = self._open[number]
        return {step: value for step, value in self.seen.get(number).intermediate_values.items() if step not in written}

    def _taken_away(self, spec: TrialSpec) -> RunError:
        return RunError(
            f"trial {spec.key} was ended by another process, which considered this one dead: repeat the command "
            "to continue"
        )

    # -- heartbeats

    def show_life(self) -> None:
        """Write a heartbeat and the curves of running trials every `FLUSH` seconds."""
        now = time.monotonic()
        if not self._open or now - self._flushed < known_trials.FLUSH:
            return
        self._flushed = self._signed = now
        unwritten = {number: self._unwritten(number) for number in self._open}
        curves = {self.seen.get(number)._trial_id: curve for number, curve in unwritten.items() if curve}
        self._do(lambda: self._bulk.write(curves, known_trials.sign()))
        for number, curve in unwritten.items():
            self._open[number] |= set(curve)

    def renew_late(self) -> None:
        """Write a heartbeat if training has written none for long; thread-safe."""
        now = time.monotonic()
        if self._open and now - self._signed > known_trials.LATE:
            self._bulk.write({}, known_trials.sign())
            self._signed = now

    # -- other processes and abandoned trials

    def look(self) -> None:
        """Read changes by other processes, if there may be any."""
        self.known.look()

    def close_abandoned(self, failed: Failed | None = None) -> int:
        """End the trials that dead processes left running, and return how many there were.

        Args:
            failed: Returns the result of a trial that crashed its process, given the reason. Without it, these trials
                are not changed.
        """
        return self._abandoned.close(self._open, failed)

    def running_elsewhere(self) -> tuple[str, ...]:
        """Return the other processes with running trials."""
        self.known.refresh()
        running = self.seen.of(TrialState.RUNNING)
        return tuple(trial_entry.owner(t) or "unknown process" for t in running if t.number not in self._open)

    def release(self, why: Mapping[int, str]) -> None:
        """Store reasons by number why trials do not count, which frees their keys; an empty reason revokes this."""
        self.known.release(why)

    # -- state of the study

    @property
    def holders(self) -> Mapping[TrialKey, int]:
        """Number of the trial that holds each key, read again; free keys are absent."""
        self.known.refresh()
        return self.claims.holders

    @property
    def suspects(self) -> set[TrialKey]:
        """Keys of trials that trained together in a process that crashed; one of them is the cause."""
        return self._abandoned.suspects

    @property
    def is_training(self) -> bool:
        """Whether this process trains trials of the study."""
        return bool(self._open)

    @property
    def has_company(self) -> bool:
        """Whether other processes trained trials of the study, as of the last read."""
        return any(trial.number not in self._open for trial in self.seen.of(TrialState.RUNNING))

    @property
    def ended_elsewhere(self) -> int:
        """Number of counting trials that other processes ended, as of the last read."""
        return len(self.known.ended_elsewhere)

    def results_elsewhere(self, without: Set[int]) -> dict[int, TrialResult]:
        """Return results by number of trials that other processes ended, as of the last read, without some numbers."""
        trials = [self.seen.get(number) for number in sorted(self.known.ended_elsewhere - without)]
        return {trial.number: self._read(trial) for trial in trials if trial_entry.RESULT in trial.user_attrs}

    @property
    def all_failed(self) -> bool:
        """Whether every ended trial failed."""
        return not self.seen.count(TrialState.COMPLETE) and not self.seen.count(TrialState.PRUNED)

    def left(self, trial_key: TrialKey) -> Params:
        """Return the parameters of the last interrupted trial of a key, or an empty mapping."""
        trial = self.known.last_interrupted(trial_key)
        return {} if trial is None else dict(trial.params)

    def results(self) -> tuple[TrialResult, ...]:
        """Return the results of all ended trials that were not interrupted, by number."""
        self.known.refresh()
        return tuple(self._read(trial) for trial in self.known.counting())

    def untracked_results(self) -> tuple[TrialResult, ...]:
        """Return the results that no other living process will write to a tracker."""
        self.known.refresh()
        counting = self.known.counting()
        return tuple(self._read(trial) for trial in counting if not self.known.is_tracked_by_its_owner(trial))

    def _read(self, trial: FrozenTrial) -> TrialResult:
        return trial_entry.read(trial, self.arm, self.phase, self.repeat)

    @property
    def notes(self) -> dict[str, Any]:
        """The notes of the study, by name."""
        self.known.refresh()
        attrs = self._do(self._bulk.attrs)
        return {name.removeprefix(_NOTE): value for name, value in attrs.items() if name.startswith(_NOTE)}

    @property
    def code_changes(self) -> list[str]:
        """Names of the user code that has changed since the study began."""
        return self.study.user_attrs.get(CODE_CHANGES, [])

    def note(self, name: str, value: Any) -> None:
        """Store a plain value with the study."""
        self._do(lambda: self._bulk.write({}, {f"{_NOTE}{name}": value}))
