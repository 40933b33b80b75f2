"""One Optuna study, through which trials are asked for, reported and told in batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from dropsearch._compat.optuna_bulk import Ending
from dropsearch._compat.optuna_writes import bulk
from dropsearch.core import process_id
from dropsearch.core.errors import RunError
from dropsearch.core.records import EpochMetrics, TrialPhase, TrialResult, TrialSpec
from dropsearch.study import leases, trial_entry
from dropsearch.study.abandoned import Abandoned, Failed
from dropsearch.study.claims import Claims, TrialKey
from dropsearch.study.distributions import propose
from dropsearch.study.known_trials import FASTER, KnownTrials
from dropsearch.study.readable_rates import ReadableRates
from dropsearch.study.reconnect import patiently
from dropsearch.study.search_space import Params
from dropsearch.study.shadow_study import Shadow
from dropsearch.study.studies import open_study, quiet_optuna

_NOTE = "note."
_T = TypeVar("_T")


class Wish(NamedTuple):
    """A trial that is wanted."""

    trial_key: TrialKey
    """What it is for."""
    point: Params
    """Values for its parameters; the sampler proposes those that it lacks."""
    seed: int
    """The sampler's seed."""


class StudyStore:
    """A study in which each trial carries its key, its process and, when it has ended, its whole curve.

    A report or a tracker can read all that it needs from the storage alone, so results that were told survive
    the process that told them. Several processes may work on one study.

    Args:
        storage: Where the study is kept.
        name: The study's name in the storage.
        arm: The arm's name.
        phase: Search or confirmation.
        fingerprint: Names and plain values that must be the same for the study to be continued.
        make_sampler: Makes Optuna's sampler from a seed.
        pruner: Optuna's pruner.
        repeat: Which repetition of the arm's search it is.
        crash_of: Returns how a dead process crashed, empty where that is not known.
        only_trains: Whether other processes track the results of this one.

    Raises:
        InputError: The storage holds a study of this name that another configuration made.
    """

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        *,
        arm: str,
        phase: TrialPhase,
        fingerprint: Mapping[str, Any],
        make_sampler: Callable[[int], BaseSampler] = RandomSampler,
        pruner: BasePruner | None = None,
        repeat: int = 1,
        crash_of: Callable[[str], str] = lambda _: "",
        only_trains: bool = False,
    ) -> None:
        self.arm, self.repeat = arm, repeat
        self.phase: TrialPhase = phase
        self._storage, self._make_sampler = storage, make_sampler
        owner = {trial_entry.OWNER: process_id.this_process()}
        self._owned = {**owner, trial_entry.WORKER: True} if only_trains else owner
        with quiet_optuna():
            self.study = open_study(storage, name, fingerprint, pruner)
            study_id = patiently(name, lambda: storage.get_study_id_from_name(name))
            # Each trial has a sampler with its own seed; all of them infer the same space, so one infers it.
            self._inferring = make_sampler(0)
        self._bulk = ReadableRates(bulk(storage, study_id))
        self._pruner = pruner or NopPruner()
        self.known = KnownTrials(self._bulk, name, phase)
        self._abandoned = Abandoned(self.known, self._bulk, name, arm=arm, phase=phase, crash_of=crash_of)
        self._open: dict[int, set[int]] = {}
        """The trials that this process trains, each with the epochs that are written."""
        self._flushed = self._signed = time.monotonic()
        self.known.refresh()

    def _do(self, act: Callable[[], _T]) -> _T:
        return patiently(self.study.study_name, act)

    # -- ask, report, tell

    def ask(self, distributions: Mapping[str, BaseDistribution], wishes: Sequence[Wish]) -> list[FrozenTrial]:
        """Begin the trials of free keys, all in one write, except those that another process began first.

        A trial is created at once with its parameters, key and process. If two processes begin a trial of one key, the
        later one therefore sees the earlier and withdraws. (Optuna's queue of waiting trials does not prevent this: two
        processes may take the same trial from an SQLite file.)

        Args:
            distributions: The parameters of the trials.
            wishes: The trials wanted; the sampler sees the earlier ones when it proposes the later ones.
        """
        with quiet_optuna():
            templates = self._templates(distributions, wishes)
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

    def _templates(self, distributions: Mapping[str, BaseDistribution], wishes: Sequence[Wish]) -> list[FrozenTrial]:
        """Return the trials to create; while they are proposed, each is in the in-memory study."""
        first = self.seen.next_number
        templates: list[FrozenTrial] = []
        inferred: Mapping[str, BaseDistribution] | None = None
        try:
            for number, wish in enumerate(wishes, start=first):
                trial = trial_entry.running(number, {})
                self.seen.put(trial)
                study = self.seen.study(self._make_sampler(wish.seed), self._pruner)
                if inferred is None:  # no trial ends while these are proposed
                    inferred = self._inferring.infer_relative_search_space(study, trial)
                params = propose(study, trial, distributions, wish.point, inferred)
                trial_key = dict(zip(trial_entry.TRIAL_KEYS[self.phase], wish.trial_key, strict=True))
                trial = trial_entry.running(number, {**trial_key, **self._owned}, params, distributions)
                templates.append(trial)
                self.seen.put(trial)
        finally:
            for number in range(first, first + len(templates) + 1):
                self.seen.discard(number)
        return templates

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Take in epochs, and return for each whether the pruner wants its trial to stop. Nothing is written yet."""
        study = self.seen.study(pruner=self._pruner)
        return [self._report(study, spec, metrics) for spec, metrics in reports]

    def _report(self, study: optuna.Study, spec: TrialSpec, metrics: EpochMetrics) -> bool:
        if self.seen.get(spec.number).state != TrialState.RUNNING:
            raise self._taken_away(spec)
        trial = self.seen.report(spec.number, metrics.epoch, metrics.objective)
        return self._pruner.prune(study, trial)

    def tell(self, results: Sequence[TrialResult]) -> None:
        """End trials, each with its whole curve, in one write.

        Raises:
            RunError: Another process took this one for dead and ended one of its trials; or the storage failed.
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
        """Return the part of a trial's curve that is not in the storage yet."""
        written = self._open[number]
        return {step: value for step, value in self.seen.get(number).intermediate_values.items() if step not in written}

    def _taken_away(self, spec: TrialSpec) -> RunError:
        return RunError(
            f"trial {spec.key} was ended by another process, which took this one for dead: give the same command "
            "again to continue"
        )

    # -- signs of life

    def show_life(self) -> None:
        """Write the curves of running trials and a sign of life, every `FLUSH` seconds."""
        now = time.monotonic()
        if not self._open or now - self._flushed < leases.FLUSH:
            return
        self._flushed = self._signed = now
        unwritten = {number: self._unwritten(number) for number in self._open}
        curves = {self.seen.get(number)._trial_id: curve for number, curve in unwritten.items() if curve}
        self._do(lambda: self._bulk.write(curves, leases.sign()))
        for number, curve in unwritten.items():
            self._open[number] |= set(curve)

    def renew_late(self) -> None:
        """Show that this process lives, if the training has not done so for long; any thread may call this."""
        now = time.monotonic()
        if self._open and now - self._signed > leases.LATE:
            self._bulk.write({}, leases.sign())
            self._signed = now

    # -- what other processes do, and what dead ones left

    def look(self) -> None:
        """Read what other processes did, if that may have changed."""
        self.known.look()

    def close_abandoned(self, failed: Failed | None = None) -> int:
        """End the trials that dead processes left running, and return how many there were.

        Args:
            failed: Returns the result of a trial that crashed its process, given the reason. Without it, the trials of
                processes that crashed are left as they are.
        """
        return self._abandoned.close(self._open, failed)

    def running_elsewhere(self) -> tuple[str, ...]:
        """Return the processes that train the running trials of others."""
        self.known.refresh()
        running = self.seen.of(TrialState.RUNNING)
        return tuple(trial_entry.owner(t) or "unknown process" for t in running if t.number not in self._open)

    def release(self, why: Mapping[int, str]) -> None:
        """Note by number why trials do not count, which frees their keys; trials with an empty reason count again."""
        self.known.release(why)

    # -- what is known of the study

    @property
    def seen(self) -> Shadow:
        """The trials as they were last read, as an in-memory study."""
        return self.known.seen

    @property
    def claims(self) -> Claims:
        """The trial that holds each key, as of the last look."""
        return self.known.claims

    @property
    def holders(self) -> Mapping[TrialKey, int]:
        """The number of the trial that holds each key which is not free, read anew."""
        self.known.refresh()
        return self.claims.holders

    @property
    def suspects(self) -> set[TrialKey]:
        """The keys of trials that trained together in a process that crashed: one of them is the cause."""
        return self._abandoned.suspects

    @property
    def is_training(self) -> bool:
        """Whether this process trains trials of the study."""
        return bool(self._open)

    @property
    def ended_elsewhere(self) -> int:
        """The number of trials that other processes ended and that count, as of the last look."""
        return len(self.known.ended_elsewhere)

    @property
    def all_failed(self) -> bool:
        """Whether every trial that ended failed."""
        return not self.seen.count(TrialState.COMPLETE) and not self.seen.count(TrialState.PRUNED)

    def left(self, trial_key: TrialKey) -> Params:
        """Return the parameters of the last interrupted trial of a key; empty if there is none."""
        trial = self.known.last_interrupted(trial_key)
        return {} if trial is None else dict(trial.params)

    def results(self) -> tuple[TrialResult, ...]:
        """Return every trial that ended and was not interrupted, by number."""
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

    def note(self, name: str, value: Any) -> None:
        """Keep a plain value beside the trials."""
        self._do(lambda: self._bulk.write({}, {f"{_NOTE}{name}": value}))
