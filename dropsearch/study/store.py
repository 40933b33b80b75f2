"""One Optuna study, and what each of its trials means to us."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from dropsearch._compat.optuna_bulk import Ending
from dropsearch._compat.optuna_writes import bulk
from dropsearch.core.errors import RunError
from dropsearch.core.process_id import is_dead, is_here, this_process
from dropsearch.core.records import INTERRUPTED, EpochMetrics, TrialPhase, TrialResult, TrialSpec
from dropsearch.study import leases, trial_entry
from dropsearch.study.claims import Claims, TrialKey
from dropsearch.study.distributions import propose
from dropsearch.study.readable_rates import ReadableRates
from dropsearch.study.reconnect import patiently
from dropsearch.study.search_space import Params
from dropsearch.study.shadow_study import Shadow
from dropsearch.study.studies import open_study, quiet_optuna

OWNER = "owner"
"""The user attribute that says which process trains a trial."""
WORKER = "worker"
"""The user attribute of a trial whose process only trains: others track its result."""
LEASE = "lease"
"""The user attribute of the study, `lease.OWNER`, that changes while a process lives."""
FASTER = "another process was faster"
"""Why a trial was withdrawn before it began."""
TRIAL_KEYS: Mapping[TrialPhase, tuple[str, ...]] = {
    "search": ("index",),
    "confirm": ("configuration", "seed"),
    "sites": ("configuration", "variation", "seed"),
}
"""The user attributes that say which of a study's places a trial fills."""
AGE, COMPANY = 3.0, 60.0
"""Seconds after which what other processes did is read again before the next trials are asked for, and seconds after
another one began a trial in which that is done each time: else both would begin trials of the same places."""
_ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
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
        crash_of: Returns how a dead process crashed, empty where that is not known.
        only_trains: Whether this process leaves it to others to track its results.

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
        self._crash_of = crash_of
        self.suspects: set[TrialKey] = set()
        """The places of trials that trained together in a process that crashed: one of them did it."""
        self.arm, self.repeat = arm, repeat
        self._owned = {OWNER: this_process(), **({WORKER: True} if only_trains else {})}
        self.phase: TrialPhase = phase
        self._storage, self._make_sampler = storage, make_sampler
        with quiet_optuna():
            self.study = open_study(storage, name, fingerprint, pruner)
            study_id = patiently(name, lambda: storage.get_study_id_from_name(name))
            # Each trial's sampler has a seed of its own; what they infer of the space is the same, and kept by one.
            self._inferring = make_sampler(0)
        self._bulk = ReadableRates(bulk(storage, study_id))
        self._pruner = pruner or NopPruner()
        self.seen = Shadow(name)
        self._claims = Claims()
        self._open: dict[int, set[int]] = {}
        self._others: set[int] = set()
        """The trials that other processes ended, and that count."""
        self._interrupted: dict[int, str] = {}
        self._silence = leases.Silence()
        self._looked, self._met = -math.inf, -math.inf
        self._flushed = self._signed = time.monotonic()
        self.refresh()

    def _do(self, act: Callable[[], _T]) -> _T:
        return patiently(self.study.study_name, act)

    # -- what is known of the study

    def look(self) -> None:
        """Read what other processes did: at once where some work on the study now, else every `AGE` seconds."""
        now = time.monotonic()
        if now - self._looked > AGE or now - self._met < COMPANY:
            self.refresh()

    def refresh(self) -> None:
        """Read what other processes did."""
        trials = self._do(self._bulk.look)
        # Read after the trials: a trial that is interrupted is noted before its state changes.
        attrs = self._do(self._bulk.attrs)
        self._looked = time.monotonic()
        if any(trial.state == TrialState.RUNNING and _owner(trial) != this_process() for trial in trials):
            self._met = self._looked
        signs = {n.removeprefix(f"{LEASE}."): sign for n, sign in attrs.items() if n.startswith(f"{LEASE}.")}
        before, prefix = self._interrupted, f"{INTERRUPTED}."
        self._interrupted = {
            int(name.removeprefix(prefix)): why for name, why in attrs.items() if name.startswith(prefix) and why
        }
        self._take_in(trials)
        self._take_in([self.seen.get(number) for number in before.keys() ^ self._interrupted if number in self.seen])
        self._silence.look(signs, {_owner(trial) for trial in self.seen.of(TrialState.RUNNING)})

    def _take_in(self, trials: Iterable[FrozenTrial]) -> None:
        for trial in trials:
            self.seen.put(trial)
            ended = trial.state in _ENDED
            counts = (ended or trial.state == TrialState.RUNNING) and self._counts(trial)
            began = self._interrupted.get(trial.number) != FASTER
            is_others = ended and counts and _owner(trial) != this_process()
            (self._others.add if is_others else self._others.discard)(trial.number)
            self._claims.set(
                trial.number, self._trial_key(trial), counts=counts, interrupted=ended and not counts and began
            )

    def _counts(self, trial: FrozenTrial) -> bool:
        """Say whether a trial was not interrupted."""
        reason = trial.user_attrs.get(trial_entry.RESULT, {}).get("reason")
        return trial.number not in self._interrupted and reason != INTERRUPTED

    @property
    def holders(self) -> Mapping[TrialKey, int]:
        """The number of the trial that holds each place which is not free: the first of those that count."""
        self.refresh()
        return self._claims.holders

    @property
    def is_training(self) -> bool:
        """Whether trials of this process are running."""
        return bool(self._open)

    @property
    def claims(self) -> Claims:
        """The places as they were when the study was last looked at."""
        return self._claims

    # -- ask, report, tell

    def ask(self, distributions: Mapping[str, BaseDistribution], wishes: Sequence[Wish]) -> list[FrozenTrial]:
        """Begin the trials of free places, all in one write; without those where another process was faster.

        A trial is created with its parameters, its place and its owner, at once. So of two processes that fill one
        place at the same time the later sees the earlier, and withdraws. (Optuna's queue of waiting trials would not
        do: from an SQLite file two processes may take the same one.)

        Args:
            distributions: The parameters of the trials.
            wishes: What is wanted; each trial is proposed with those before it in sight.
        """
        with quiet_optuna():
            templates = self._templates(distributions, wishes)
        created, crowded = self._do(lambda: self._bulk.create(templates))
        self._take_in(created)
        if crowded:
            self.refresh()
        holders = self._claims.holders
        ours = [trial for trial in created if holders.get(self._trial_key(trial) or ()) == trial.number]
        late = {trial.number for trial in created} - {trial.number for trial in ours}
        if late:
            self._interrupt(dict.fromkeys(late, FASTER))
        self._open |= {trial.number: set() for trial in ours}
        return ours

    def _templates(self, distributions: Mapping[str, BaseDistribution], wishes: Sequence[Wish]) -> list[FrozenTrial]:
        first = self.seen.next_number
        templates: list[FrozenTrial] = []
        inferred: Mapping[str, BaseDistribution] | None = None
        try:
            for number, wish in enumerate(wishes, start=first):
                trial = _running(number, {})
                self.seen.put(trial)
                study = self.seen.study(self._make_sampler(wish.seed), self._pruner)
                if inferred is None:  # no trial ends while these are proposed
                    inferred = self._inferring.infer_relative_search_space(study, trial)
                params = propose(study, trial, distributions, wish.point, inferred)
                trial_keys = dict(zip(TRIAL_KEYS[self.phase], wish.trial_key, strict=True))
                trial = _running(number, {**trial_keys, **self._owned}, params, distributions)
                templates.append(trial)
                self.seen.put(trial)
        finally:
            for number in range(first, first + len(templates) + 1):
                self.seen.discard(number)
        return templates

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Take in epochs; return of each trial whether the pruner wants it to stop. Nothing is written yet."""
        study = self.seen.study(pruner=self._pruner)
        return [self._report(study, spec, metrics) for spec, metrics in reports]

    def _report(self, study: optuna.Study, spec: TrialSpec, metrics: EpochMetrics) -> bool:
        if self.seen.get(spec.number).state != TrialState.RUNNING:
            raise self._taken_away(spec)
        trial = self.seen.report(spec.number, metrics.epoch, metrics.objective)
        return self._pruner.prune(study, trial)

    def tell(self, results: Sequence[TrialResult]) -> None:
        """End trials: each with its whole curve, in one write.

        Raises:
            RunError: Another process took this one for dead and ended a trial of it; or the storage failed.
        """
        endings = [self._ending(result) for result in results]
        for result in results:
            del self._open[result.spec.number]
        ended = self._do(lambda: self._bulk.end(endings))
        self._take_in(trial for trial, _ in ended)
        noted = self._do(self._bulk.attrs)
        for result, (trial, was_running) in zip(results, ended, strict=True):
            if noted.get(f"{INTERRUPTED}.{trial.number}") or not (
                was_running or trial_entry.RESULT in trial.user_attrs
            ):
                raise self._taken_away(result.spec)

    def _ending(self, result: TrialResult) -> Ending:
        number = result.spec.number
        trial, written = self.seen.get(number), self._open[number]
        curve = {step: value for step, value in trial.intermediate_values.items() if step not in written}
        attrs = {trial_entry.RESULT: trial_entry.written(result)}
        return Ending(trial, *_outcome(result, trial), curve, attrs, trial.system_attrs)

    def show_life(self) -> None:
        """Write what was reported of running trials and that this process lives, every `FLUSH` seconds."""
        now = time.monotonic()
        if not self._open or now - self._flushed < leases.FLUSH:
            return
        self._flushed = self._signed = now
        running = {number: self.seen.get(number) for number in self._open}
        curves = {
            trial._trial_id: {s: v for s, v in trial.intermediate_values.items() if s not in self._open[number]}
            for number, trial in running.items()
        }
        curves = {trial_id: curve for trial_id, curve in curves.items() if curve}
        self._do(lambda: self._bulk.write(curves, _sign()))
        for number, trial in running.items():
            self._open[number] |= set(trial.intermediate_values)

    def renew_late(self) -> None:
        """Show that this process lives, where the training has not done so for long; any thread may call this."""
        now = time.monotonic()
        if self._open and now - self._signed > leases.LATE:
            self._bulk.write({}, _sign())
            self._signed = now

    def _taken_away(self, spec: TrialSpec) -> RunError:
        return RunError(
            f"trial {spec.key} was ended by another process, which took this one for dead: give the same command "
            "again to continue"
        )

    # -- what other processes left

    def close_abandoned(self, failed: Callable[[FrozenTrial, str], TrialResult] | None = None) -> int:
        """End the trials that dead processes left running, so that their places are free; return how many.

        Args:
            failed: Returns the result of a trial that crashed its process, given the reason. Without it, the trials of
                processes that crashed are left as they are.
        """
        self.refresh()
        running = [trial for trial in self.seen.of(TrialState.RUNNING) if trial.number not in self._open]
        dead = {owner for owner in {_owner(trial) for trial in running} if self._is_gone(owner)}
        crashes = {owner: crash for owner in dead if (crash := self._crash_of(owner))}
        if failed is None:
            dead -= crashes.keys()
        ids = [trial._trial_id for trial in running if _owner(trial) in dead]
        abandoned = self._do(lambda: self._bulk.read(ids))
        # Of a write that was cut short, the result may be there without the state.
        whole = [trial for trial in abandoned if trial_entry.RESULT in trial.user_attrs]
        self._end([Ending(trial, *_outcome(self._read(trial), trial)) for trial in whole])
        lost = [trial for trial in abandoned if trial_entry.RESULT not in trial.user_attrs]
        for owner, crash in crashes.items():
            theirs = [trial for trial in lost if _owner(trial) == owner]
            if failed is not None and theirs:
                self._settle_crash(theirs, crash, failed)
        lost = [trial for trial in lost if self.seen.get(trial.number).state == TrialState.RUNNING]
        if lost:
            self._interrupt(dict.fromkeys((trial.number for trial in lost), "its process died"))
        return len(abandoned)

    def _settle_crash(
        self, lost: Sequence[FrozenTrial], crash: str, failed: Callable[[FrozenTrial, str], TrialResult]
    ) -> None:
        """Fail a trial that crashed its process alone; of several, note that each must be trained alone."""
        name, numbers = self.study.study_name, ", ".join(str(trial.number) for trial in lost)
        if len(lost) > 1:
            said = f"one of the trials {numbers} of {name} ended the last run: {crash}; each is trained alone now"
            self.suspects |= {trial_key for trial in lost if (trial_key := self._trial_key(trial)) is not None}
        else:
            said = f"trial {numbers} of {name} ended the last run and has failed: {crash}"
            result = failed(lost[0], f"its process died: {crash}")
            self._end([Ending(lost[0], TrialState.FAIL, user_attrs={trial_entry.RESULT: trial_entry.written(result)})])
        print(said, file=sys.stderr)

    def _end(self, endings: Sequence[Ending]) -> None:
        if endings:
            self._take_in(trial for trial, _ in self._do(lambda: self._bulk.end(endings)))

    def _is_gone(self, owner: str) -> bool:
        if owner == this_process():
            return True  # only trials that are not open here are looked at
        return is_dead(owner) or (not is_here(owner) and self._silence.of(owner) > leases.SILENCE)

    def _interrupt(self, why: Mapping[int, str]) -> None:
        # In this order: of a process that dies in between, the place is free and the trial found again.
        self.release(why)
        endings = [Ending(self.seen.get(number), TrialState.FAIL) for number in why]
        ended = self._do(lambda: self._bulk.end(endings))
        self._take_in(trial for trial, _ in ended)
        # A trial's process may have lived, and told how it ended, since we looked.
        told = [trial.number for trial, _ in ended if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        if told:
            self.release(dict.fromkeys(told, ""))

    def release(self, why: Mapping[int, str]) -> None:
        """Let trials count for nothing, so that their places are free; without a reason they count again."""
        self._do(lambda: self._bulk.write({}, {f"{INTERRUPTED}.{number}": reason for number, reason in why.items()}))
        self._interrupted = {n: reason for n, reason in {**self._interrupted, **why}.items() if reason}
        self._take_in([self.seen.get(number) for number in why])

    def running_elsewhere(self) -> tuple[str, ...]:
        """Return who trains the trials that run and are not ours."""
        self.refresh()
        running = self.seen.of(TrialState.RUNNING)
        return tuple(_owner(trial) or "somebody" for trial in running if trial.number not in self._open)

    def _trial_key(self, trial: FrozenTrial) -> TrialKey | None:
        attrs = trial.user_attrs
        names = TRIAL_KEYS[self.phase]
        return tuple(attrs[name] for name in names) if all(name in attrs for name in names) else None

    def left(self, trial_key: TrialKey) -> Params:
        """Return the parameters of the last trial that held a place and was interrupted; empty without one."""
        number = self._claims.interrupted(trial_key)
        return {} if number is None else dict(self.seen.get(number).params)

    # -- what was found

    def results(self) -> tuple[TrialResult, ...]:
        """Return every trial that ended and was not interrupted, by number."""
        self.refresh()
        return tuple(self._read(trial) for trial in self._counting())

    @property
    def ended_elsewhere(self) -> int:
        """How many trials that count other processes had ended when the study was last looked at."""
        return len(self._others)

    @property
    def all_failed(self) -> bool:
        """Whether no trial that ended did so well that it is more than a failure."""
        return not self.seen.count(TrialState.COMPLETE) and not self.seen.count(TrialState.PRUNED)

    def _counting(self) -> list[FrozenTrial]:
        return [t for t in self.seen.of(*_ENDED) if trial_entry.RESULT in t.user_attrs and self._counts(t)]

    def untracked_results(self) -> tuple[TrialResult, ...]:
        """Return the results that no living process but this one will write to a tracker."""
        self.refresh()
        return tuple(self._read(trial) for trial in self._counting() if not self._is_tracked_by_its_owner(trial))

    def _is_tracked_by_its_owner(self, trial: FrozenTrial) -> bool:
        owner, ended = trial.user_attrs.get(OWNER, ""), trial.datetime_complete
        if trial.user_attrs.get(WORKER) or owner == this_process() or is_dead(owner) or ended is None:
            return False
        return is_here(owner) or datetime.now(ended.tzinfo) - ended < timedelta(seconds=leases.SILENCE)

    def _read(self, trial: FrozenTrial) -> TrialResult:
        return trial_entry.read(trial, self.arm, self.phase, self.repeat)

    @property
    def notes(self) -> dict[str, Any]:
        """What was noted beside the trials, by name."""
        self.refresh()
        attrs = self._do(self._bulk.attrs)
        return {k[len("note.") :]: v for k, v in attrs.items() if k.startswith("note.")}

    def note(self, name: str, value: Any) -> None:
        """Note a plain value beside the trials."""
        self._do(lambda: self._bulk.write({}, {f"note.{name}": value}))


def _running(
    number: int,
    attrs: Mapping[str, Any],
    params: Mapping[str, Any] | None = None,
    distributions: Mapping[str, BaseDistribution] | None = None,
) -> FrozenTrial:
    """Return a trial that is not in the storage yet, with an id that none there has."""
    return FrozenTrial(
        number=number,
        trial_id=-1 - number,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=datetime.now(),
        datetime_complete=None,
        params=dict(params or {}),
        distributions=dict(distributions or {}),
        user_attrs=dict(attrs),
        system_attrs={},
        intermediate_values={},
    )


def _sign() -> dict[str, Any]:
    """Return the attribute of the study that shows that this process lives."""
    return {f"{LEASE}.{this_process()}": round(time.time())}


def _owner(trial: FrozenTrial) -> str:
    return trial.user_attrs.get(OWNER, "")


def _outcome(result: TrialResult, trial: FrozenTrial) -> tuple[TrialState, float | None]:
    """Return the state and the value of a trial in Optuna's terms: a pruned one has the value it was pruned at."""
    if result.state == "COMPLETE":
        return TrialState.COMPLETE, result.best.objective if result.best else None
    last = trial.intermediate_values.get(trial.last_step or 0, math.nan)
    if result.state == "PRUNED" and not math.isnan(last):
        return TrialState.PRUNED, last
    return TrialState[result.state], None
