"""One Optuna study, and what each of its trials means to us."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, PartialFixedSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from dropsearch.core.errors import RunError
from dropsearch.core.process_id import is_dead, is_here, this_process
from dropsearch.core.records import INTERRUPTED, EpochMetrics, TrialPhase, TrialResult, TrialSpec
from dropsearch.study import trial_entry
from dropsearch.study.distributions import suggest
from dropsearch.study.search_space import Params
from dropsearch.study.studies import kept, open_study, quiet_optuna

OWNER = "owner"
"""The user attribute that says which process trains a trial."""
TRIAL_KEYS: Mapping[TrialPhase, tuple[str, ...]] = {
    "search": ("index",),
    "confirm": ("configuration", "seed"),
    "sites": ("configuration", "variation", "seed"),
    "l2": ("configuration", "variation", "seed"),
    "sizes": ("configuration", "variation", "seed"),
}
"""The user attributes that say which of a study's places a trial fills."""
SILENCE = 600.0
"""Seconds without a sign of life after which a process that cannot be looked at counts as dead."""
_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

TrialKey = tuple[int, ...]
"""What a trial is for, by the names of `TRIAL_KEYS`: (index,) in a search. Each is filled once."""


class StudyStore:
    """A study in which each trial carries its place, its owner and, when it has ended, its whole curve.

    All that a report or a tracker needs can be read back from the storage alone, so nothing that was told
    is lost with the process that told it. Several processes may work on one study.

    Args:
        storage: Where the study is kept.
        name: The study's name in the storage.
        arm: The arm's name.
        purpose: Search or confirmation.
        fingerprint: What must be the same for the study to be continued: names and plain values.
        make_sampler: Makes Optuna's sampler from a seed.
        pruner: Optuna's pruner.
        repeat: Which repetition of the arm's search it is.

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
    ) -> None:
        self.arm, self.repeat = arm, repeat
        self.phase: TrialPhase = phase
        self._storage, self._make_sampler = storage, make_sampler
        with kept(name), quiet_optuna():
            self.study = open_study(storage, name, fingerprint, pruner)
        self._open: dict[int, Trial] = {}
        self._seen: dict[int, tuple[int, float]] = {}

    def ask(
        self, distributions: Mapping[str, BaseDistribution], trial_key: TrialKey, point: Params, seed: int
    ) -> Trial | None:
        """Begin the trial of a place that is free; None where another process was faster.

        A trial is created with its place and its owner, at once. So of two processes that fill one place at the
        same time the later sees the earlier, and withdraws. (Optuna's queue of waiting trials would not do:
        from an SQLite file two processes may take the same one.)

        Args:
            distributions: The parameters of the trial.
            place: What the trial is for.
            point: Values for its parameters; the sampler proposes those that it lacks.
            seed: The sampler's seed.
        """
        with kept(self.study.study_name), quiet_optuna():
            sampler = self._make_sampler(seed)
            self.study.sampler = PartialFixedSampler(point, sampler) if point else sampler
            trial = self._create({**dict(zip(TRIAL_KEYS[self.phase], trial_key, strict=True)), OWNER: this_process()})
            if self.holders.get(trial_key) != trial.number:
                self._interrupt(trial.number, "another process was faster")
                return None
            self._open[trial.number] = trial
            for name, distribution in distributions.items():
                suggest(trial, name, distribution)
        return trial

    def _create(self, attrs: Mapping[str, Any]) -> Trial:
        """Do what `Study.ask` does, with user attributes that are there from the first moment."""
        template = create_trial(state=TrialState.RUNNING, user_attrs=dict(attrs))
        study_id = self._storage.get_study_id_from_name(self.study.study_name)
        return Trial(self.study, self._storage.create_new_trial(study_id, template_trial=template))

    def report(self, spec: TrialSpec, metrics: EpochMetrics) -> bool:
        """Report an epoch's validation loss; return whether the pruner wants the trial to stop."""
        trial = self._open[spec.number]
        with kept(self.study.study_name):
            try:
                trial.report(metrics.objective, metrics.epoch)
                return trial.should_prune()
            except UpdateFinishedTrialError as error:
                raise self._taken_away(spec) from error

    def tell(self, result: TrialResult) -> None:
        """End a trial. Its curve is written before its state, so an ended trial is always whole.

        Raises:
            RunError: Another process took this one for dead and ended the trial; or the storage failed.
        """
        trial = self._open.pop(result.spec.number)
        with kept(self.study.study_name):
            try:
                trial.set_user_attr(trial_entry.RESULT, trial_entry.written(result))
            except UpdateFinishedTrialError as error:
                raise self._taken_away(result.spec) from error
            self._tell(trial.number, result)
            if self.study.user_attrs.get(f"{INTERRUPTED}.{trial.number}"):
                raise self._taken_away(result.spec)

    def _tell(self, number: int, result: TrialResult) -> None:
        value = result.best.objective if result.state == "COMPLETE" and result.best else None
        self._end(number, TrialState[result.state], value)

    def _end(self, number: int, state: TrialState, value: float | None = None) -> None:
        # A neighbour may be closing the same abandoned trial: it may have done so when `tell` looks, or a moment later.
        with suppress(UpdateFinishedTrialError):
            self.study.tell(number, value, state=state, skip_if_finished=True)

    def _taken_away(self, spec: TrialSpec) -> RunError:
        return RunError(
            f"trial {spec.key} was ended by another process, which took this one for dead: give the same command "
            "again to continue"
        )

    def close_abandoned(self) -> int:
        """End the trials that dead processes left running, so that their places are free; return how many."""
        with kept(self.study.study_name):
            abandoned = [trial for trial in self._trials(TrialState.RUNNING) if self._is_abandoned(trial)]
            for trial in abandoned:
                if trial_entry.RESULT in trial.user_attrs:  # it had ended; only its state was not written any more
                    self._tell(trial.number, self._read(trial))
                else:
                    self._interrupt(trial.number, "its process died")
        return len(abandoned)

    def _is_abandoned(self, trial: FrozenTrial) -> bool:
        owner = trial.user_attrs.get(OWNER, "")
        if owner == this_process():
            return trial.number not in self._open
        return is_dead(owner) or (not is_here(owner) and self._is_silent(trial))

    def _is_silent(self, trial: FrozenTrial) -> bool:
        """Say whether a trial has reported nothing for long, by this process's own clock."""
        epochs, now = len(trial.intermediate_values), time.monotonic()
        if self._seen.get(trial.number, (-1, 0.0))[0] != epochs:
            self._seen[trial.number] = (epochs, now)
        return now - self._seen[trial.number][1] > SILENCE

    def _interrupt(self, number: int, why: str) -> None:
        # In this order: of a process that dies in between, the place is free and the trial found again.
        self.release(number, why)
        self._end(number, TrialState.FAIL)
        # Its process may have lived, and told how it ended, since we looked.
        if any(trial.number == number for trial in self._trials(TrialState.COMPLETE, TrialState.PRUNED)):
            self.release(number, "")

    def release(self, number: int, why: str) -> None:
        """Let a trial count for nothing from now on, so that its place is free; without a reason it counts again."""
        self.study.set_user_attr(f"{INTERRUPTED}.{number}", why)

    def running_elsewhere(self) -> tuple[str, ...]:
        """Return who trains the trials that run and are not ours."""
        running = self._trials(TrialState.RUNNING)
        return tuple(t.user_attrs.get(OWNER, "somebody") for t in running if t.number not in self._open)

    @property
    def holders(self) -> dict[TrialKey | None, int]:
        """The number of the trial that holds each place which is not free: the first of those that count."""
        found: dict[TrialKey | None, int] = {}
        for trial in self._counting(TrialState.RUNNING, *_ENDED):
            found.setdefault(self._trial_key(trial), trial.number)
        found.pop(None, None)
        return found

    def _trial_key(self, trial: FrozenTrial) -> TrialKey | None:
        attrs = trial.user_attrs
        names = TRIAL_KEYS[self.phase]
        return tuple(attrs[name] for name in names) if all(name in attrs for name in names) else None

    def left(self, trial_key: TrialKey) -> Params:
        """Return the parameters of the last trial that held a place and was interrupted; empty without one."""
        counting = {trial.number for trial in self._counting(*_ENDED)}
        past = [t for t in self._trials(*_ENDED) if t.number not in counting and self._trial_key(t) == trial_key]
        return dict(past[-1].params) if past else {}

    def results(self) -> tuple[TrialResult, ...]:
        """Return every trial that ended and was not interrupted, by number."""
        return tuple(self._read(t) for t in self._counting(*_ENDED) if trial_entry.RESULT in t.user_attrs)

    def untracked_results(self) -> tuple[TrialResult, ...]:
        """Return the results that no living process but this one will write to a tracker."""
        theirs = {trial.number for trial in self._trials(*_ENDED) if self._is_tracked_by_its_owner(trial)}
        return tuple(result for result in self.results() if result.spec.number not in theirs)

    def _is_tracked_by_its_owner(self, trial: FrozenTrial) -> bool:
        owner, ended = trial.user_attrs.get(OWNER, ""), trial.datetime_complete
        if owner == this_process() or is_dead(owner) or ended is None:
            return False
        return is_here(owner) or datetime.now(ended.tzinfo) - ended < timedelta(seconds=SILENCE)

    def _read(self, trial: FrozenTrial) -> TrialResult:
        return trial_entry.read(trial, self.arm, self.phase, self.repeat)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        with kept(self.study.study_name):
            return self.study.get_trials(deepcopy=False, states=states)

    def _counting(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in these states that were not interrupted."""
        trials = self._trials(*states)
        # Read after the trials: a trial that is interrupted is noted before its state changes.
        notes = self.study.user_attrs
        return [
            trial
            for trial in trials
            if not notes.get(f"{INTERRUPTED}.{trial.number}")
            and trial.user_attrs.get(trial_entry.RESULT, {}).get("reason") != INTERRUPTED
        ]

    @property
    def notes(self) -> dict[str, Any]:
        """What was noted beside the trials, by name."""
        return {k[len("note.") :]: v for k, v in self.study.user_attrs.items() if k.startswith("note.")}

    def note(self, name: str, value: Any) -> None:
        """Note a plain value beside the trials."""
        with kept(self.study.study_name):
            self.study.set_user_attr(f"note.{name}", value)
