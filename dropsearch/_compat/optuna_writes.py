"""Many trials of an Optuna storage in one write: what its public interface writes one value at a time.

This file holds all private parts of Optuna that studies use: the records and the replay of a journal, the tables of
a database, and the filter that Hyperband puts in front of a sampler. For any other storage, and where a version of
Optuna lacks one of them, the same is written through the public interface.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from typing import Any, Protocol, TypeVar

import optuna
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, insert, select, update  # comes with optuna
from sqlalchemy.exc import IntegrityError


def _private(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError:  # another version of Optuna
        return None


models = _private("optuna.storages._rdb.models")
Operation: Any = getattr(_private("optuna.storages.journal._storage"), "JournalOperation", None)
Curves = Mapping[int, Mapping[int, float]]
"""Values to add by trial id and step."""
_T = TypeVar("_T")
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_MOST_IN_A_LIST = 500
"""How many ids a query names; beyond that, it reads all trials of the study."""


@dataclass(frozen=True)
class Ending:
    """How a trial ends, and what is written with its end."""

    trial: FrozenTrial
    """The trial as it ran, with its whole curve."""
    state: TrialState
    value: float | None = None
    curve: Mapping[int, float] = field(default_factory=dict)
    """By step, the values that are not written yet."""
    user_attrs: Mapping[str, Any] = field(default_factory=dict)
    system_attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trial_id(self) -> int:
        """The id in the storage."""
        return self.trial._trial_id


class Bulk(Protocol):
    """One study of a storage."""

    def look(self) -> list[FrozenTrial]:
        """Return the trials that were created or ended since the last look, by whomever, in order of their numbers."""
        ...

    def attrs(self) -> Mapping[str, Any]:
        """Return the study's user attributes as they were at the last look or later."""
        ...

    def read(self, trial_ids: Sequence[int]) -> list[FrozenTrial]:
        """Return trials as they are now."""
        ...

    def create(self, templates: Sequence[FrozenTrial]) -> tuple[list[FrozenTrial], bool]:
        """Create running trials at once; return them, and whether another process created some since the last look."""
        ...

    def end(self, endings: Sequence[Ending]) -> list[tuple[FrozenTrial, bool]]:
        """End trials; return how each is now, and whether it was still running and ended as told."""
        ...

    def write(self, curves: Curves, attrs: Mapping[str, Any]) -> None:
        """Add values to running trials, and set user attributes of the study."""
        ...


def bulk(storage: BaseStorage, study_id: int) -> Bulk:
    """Return the fastest way to write many trials of a study."""
    if models is not None and isinstance(storage, RDBStorage) and hasattr(storage, "_get_trials"):
        return _Database(storage, study_id)
    if isinstance(storage, JournalStorage) and Operation is not None and _is_known(storage):
        return _Journal(storage, study_id)
    return _Plain(storage, study_id)


def _is_known(storage: JournalStorage) -> bool:
    replay = getattr(storage, "_replay_result", None)
    return all(hasattr(storage, name) for name in ("_backend", "_thread_lock")) and all(
        hasattr(replay, name) for name in ("_trials", "_study_id_to_trial_ids", "worker_id", "log_number_read")
    )


def filtered(study: optuna.Study, trial: FrozenTrial) -> optuna.Study:
    """Return the study as a sampler is to see it for a trial: with Hyperband, the trials of its bracket."""
    choose = getattr(optuna.pruners, "_filter_study", None)
    return study if choose is None else choose(study, trial)


class _Plain:
    """Any storage, through its public interface: one write a value."""

    def __init__(self, storage: BaseStorage, study_id: int) -> None:
        self._storage, self._study_id = storage, study_id
        self._states: dict[int, TrialState] = {}

    def look(self) -> list[FrozenTrial]:
        trials = self._storage.get_all_trials(self._study_id, deepcopy=False)
        changed = [trial for trial in trials if self._states.get(trial.number) != trial.state]
        self._states |= {trial.number: trial.state for trial in changed}
        return changed

    def attrs(self) -> Mapping[str, Any]:
        return self._storage.get_study_user_attrs(self._study_id)

    def read(self, trial_ids: Sequence[int]) -> list[FrozenTrial]:
        return [self._storage.get_trial(trial_id) for trial_id in trial_ids]

    def create(self, templates: Sequence[FrozenTrial]) -> tuple[list[FrozenTrial], bool]:
        ids = [self._storage.create_new_trial(self._study_id, template_trial=template) for template in templates]
        return self.read(ids), True

    def end(self, endings: Sequence[Ending]) -> list[tuple[FrozenTrial, bool]]:
        ended = [self._end(ending) for ending in endings]
        trials = self.read([ending.trial_id for ending in endings])
        self._states |= {trial.number: trial.state for trial in trials}
        return list(zip(trials, ended, strict=True))

    def _end(self, ending: Ending) -> bool:
        trial_id = ending.trial_id
        try:
            for step, value in ending.curve.items():
                self._storage.set_trial_intermediate_value(trial_id, step, value)
            for name, attr in ending.system_attrs.items():
                self._storage.set_trial_system_attr(trial_id, name, attr)
            for name, attr in ending.user_attrs.items():
                self._storage.set_trial_user_attr(trial_id, name, attr)
            values = None if ending.value is None else [ending.value]
            return self._storage.set_trial_state_values(trial_id, ending.state, values)
        except UpdateFinishedTrialError:
            return False

    def write(self, curves: Curves, attrs: Mapping[str, Any]) -> None:
        for name, attr in attrs.items():
            self._storage.set_study_user_attr(self._study_id, name, attr)
        for trial_id, curve in curves.items():
            try:
                for step, value in curve.items():
                    self._storage.set_trial_intermediate_value(trial_id, step, value)
            except UpdateFinishedTrialError:
                continue


class _Journal:
    """A journal: one append, and so one fsync, for any number of records; what is appended at once is in one piece."""

    def __init__(self, storage: JournalStorage, study_id: int) -> None:
        self._storage, self._study_id = storage, study_id
        self._known = 0
        self._unfinished: set[int] = set()

    @property
    def _replay(self) -> Any:
        return self._storage._replay_result

    def look(self) -> list[FrozenTrial]:
        with self._storage._thread_lock:
            self._apply()
            return self._changed()

    def _changed(self) -> list[FrozenTrial]:
        trials, ids = self._replay._trials, self._replay._study_id_to_trial_ids[self._study_id]
        ended = [trial_id for trial_id in self._unfinished if trials[trial_id].state.is_finished()]
        new = ids[self._known :]
        self._known = len(ids)
        self._unfinished -= set(ended)
        self._unfinished |= {trial_id for trial_id in new if not trials[trial_id].state.is_finished()}
        return sorted((trials[trial_id] for trial_id in (*ended, *new)), key=lambda trial: trial.number)

    def attrs(self) -> Mapping[str, Any]:
        return self._replay.get_study(self._study_id).user_attrs

    def read(self, trial_ids: Sequence[int]) -> list[FrozenTrial]:
        with self._storage._thread_lock:
            self._apply()
            return [self._replay.get_trial(trial_id) for trial_id in trial_ids]

    def create(self, templates: Sequence[FrozenTrial]) -> tuple[list[FrozenTrial], bool]:
        with self._storage._thread_lock:
            ids, _ = self._append(self._creation(template) for template in templates)
            created = [self._replay.get_trial(trial_id) for trial_id in ids]
            there = len(self._replay._study_id_to_trial_ids[self._study_id])
            crowded = there > self._known + len(ids)
            if not crowded:
                self._known = there
                self._unfinished |= set(ids)
        return created, crowded

    def _creation(self, template: FrozenTrial) -> tuple[Any, dict[str, Any]]:
        distributions = template.distributions
        return Operation.CREATE_TRIAL, {
            "study_id": self._study_id,
            "datetime_start": _utc(template.datetime_start or datetime.now()),
            "state": template.state,
            "value": None,
            "values": None,
            "distributions": {name: _as_json(distribution) for name, distribution in distributions.items()},
            "params": {name: distributions[name].to_internal_repr(value) for name, value in template.params.items()},
            "user_attrs": template.user_attrs,
            "system_attrs": template.system_attrs,
            "intermediate_values": template.intermediate_values,
        }

    def end(self, endings: Sequence[Ending]) -> list[tuple[FrozenTrial, bool]]:
        with self._storage._thread_lock:
            _, refused = self._append(record for ending in endings for record in self._end(ending))
            self._unfinished -= {ending.trial_id for ending in endings}
            return [(self._replay.get_trial(e.trial_id), e.trial_id not in refused) for e in endings]

    def _end(self, ending: Ending) -> Iterable[tuple[Any, dict[str, Any]]]:
        trial = {"trial_id": ending.trial_id}
        yield from self._values(ending.trial_id, ending.curve)
        for name, attr in ending.system_attrs.items():
            yield Operation.SET_TRIAL_SYSTEM_ATTR, {**trial, "system_attr": {name: attr}}
        for name, attr in ending.user_attrs.items():
            yield Operation.SET_TRIAL_USER_ATTR, {**trial, "user_attr": {name: attr}}
        yield (
            Operation.SET_TRIAL_STATE_VALUES,
            {
                **trial,
                "state": ending.state,
                "values": None if ending.value is None else [ending.value],
                "datetime_complete": _utc(datetime.now()),
            },
        )

    def _values(self, trial_id: int, curve: Mapping[int, float]) -> Iterable[tuple[Any, dict[str, Any]]]:
        for step, value in curve.items():
            yield (
                Operation.SET_TRIAL_INTERMEDIATE_VALUE,
                {"trial_id": trial_id, "step": step, "intermediate_value": value},
            )

    def write(self, curves: Curves, attrs: Mapping[str, Any]) -> None:
        noted = [
            (Operation.SET_STUDY_USER_ATTR, {"study_id": self._study_id, "user_attr": {name: attr}})
            for name, attr in attrs.items()
        ]
        values = [record for trial_id, curve in curves.items() for record in self._values(trial_id, curve)]
        with self._storage._thread_lock:
            self._append([*noted, *values])

    def _append(self, records: Iterable[tuple[Any, dict[str, Any]]]) -> tuple[list[int], set[int]]:
        """Append records and read them back; return the ids of trials created, and of those that had ended before."""
        worker = self._replay.worker_id
        logs = [{"op_code": operation, "worker_id": worker, **fields} for operation, fields in records]
        if logs:
            self._storage._backend.append_logs(logs)
        return self._apply()

    def _apply(self) -> tuple[list[int], set[int]]:
        replay, created, refused = self._replay, [], set()
        for log in list(self._storage._backend.read_logs(replay.log_number_read)):
            try:
                replay.apply_logs([log])
            except UpdateFinishedTrialError:
                refused.add(log["trial_id"])
            if log["op_code"] == Operation.CREATE_TRIAL and log["worker_id"] == replay.worker_id:
                created.append(replay._last_created_trial_id_by_this_process)
        return created, refused


class _Database:
    """A database: one transaction, and in it one statement a table, for any number of trials."""

    def __init__(self, storage: RDBStorage, study_id: int) -> None:
        self._storage, self._study_id = storage, study_id
        # Where a connection is dropped, Optuna quotes the whole query; `outage` says it in a line.
        logging.getLogger("optuna.storages._rdb.storage").setLevel(logging.ERROR)
        self._last = -1
        self._unfinished: set[int] = set()

    def _transaction(self, act: Callable[[Connection], _T]) -> _T:
        for _ in range(3):  # two processes may insert the same attribute of the study: the later finds it there
            try:
                with self._storage.engine.begin() as connection:
                    return act(connection)
            except IntegrityError:
                continue
        with self._storage.engine.begin() as connection:
            return act(connection)

    def look(self) -> list[FrozenTrial]:
        new, ended = self._transaction(self._changed)
        trials = self.read([*ended, *new])
        self._last = max(self._last, *new, -1)
        self._unfinished |= set(new)
        self._unfinished -= {trial._trial_id for trial in trials if trial.state.is_finished()}
        return trials

    def _changed(self, connection: Connection) -> tuple[list[int], list[int]]:
        """Return the ids of the trials that are new, and of those that ended."""
        trials = models.TrialModel.__table__.c
        ids = select(trials.trial_id)
        new = connection.scalars(ids.where(trials.study_id == self._study_id, trials.trial_id > self._last)).all()
        if not self._unfinished:
            return list(new), []
        ended = ids.where(trials.trial_id.in_(self._unfinished), trials.state.in_(_FINISHED))
        return list(new), list(connection.scalars(ended))

    def attrs(self) -> Mapping[str, Any]:
        return self._storage.get_study_user_attrs(self._study_id)

    def read(self, trial_ids: Sequence[int]) -> list[FrozenTrial]:
        wanted = set(trial_ids)
        if not wanted:
            return []
        if len(wanted) > _MOST_IN_A_LIST:
            trials = self._storage.get_all_trials(self._study_id, deepcopy=False)
        else:
            trials = self._storage._get_trials(self._study_id, None, wanted, max(wanted))
        return [trial for trial in trials if trial._trial_id in wanted]

    def create(self, templates: Sequence[FrozenTrial]) -> tuple[list[FrozenTrial], bool]:
        created, crowded = self._transaction(lambda connection: self._create(connection, templates))
        if not crowded:
            ids = {trial._trial_id for trial in created}
            self._last = max(self._last, *ids)
            self._unfinished |= ids
        return created, crowded

    def _create(self, connection: Connection, templates: Sequence[FrozenTrial]) -> tuple[list[FrozenTrial], bool]:
        self._lock_study(connection)
        trials = models.TrialModel.__table__.c
        newest = select(trials.trial_id, trials.number).where(trials.study_id == self._study_id)
        last = connection.execute(newest.order_by(trials.trial_id.desc()).limit(1)).first()
        first = 0 if last is None else last.number + 1
        created = []
        for number, template in enumerate(templates, start=first):
            trial = copy.copy(template)
            trial.number, trial.datetime_start = number, template.datetime_start or datetime.now()
            created.append(trial)
        for trial, trial_id in zip(created, self._insert_trials(connection, created), strict=True):
            trial._trial_id = trial_id
        _insert(connection, models.TrialParamModel, [row for trial in created for row in _params(trial)])
        attrs = [(trial._trial_id, trial.user_attrs) for trial in created]
        _insert(connection, models.TrialUserAttributeModel, _attributes(attrs))
        attrs = [(trial._trial_id, trial.system_attrs) for trial in created]
        _insert(connection, models.TrialSystemAttributeModel, _attributes(attrs))
        return created, last is not None and last.trial_id > self._last

    def _lock_study(self, connection: Connection) -> None:
        """Let no other process create trials of the study until the transaction ends."""
        table = models.StudyModel.__table__
        this = table.c.study_id == self._study_id
        if self._storage.engine.name == "sqlite":  # which has no FOR UPDATE, but locks at the first change
            connection.execute(update(table).where(this).values(study_name=table.c.study_name))
        else:
            connection.execute(select(table.c.study_id).where(this).with_for_update())

    def _insert_trials(self, connection: Connection, trials: Sequence[FrozenTrial]) -> list[int]:
        table = models.TrialModel.__table__
        rows = [
            {
                "number": trial.number,
                "study_id": self._study_id,
                "state": trial.state,
                "datetime_start": _naive_utc(trial.datetime_start),
            }
            for trial in trials
        ]
        if getattr(connection.dialect, "insert_executemany_returning_sort_by_parameter_order", False):
            return list(
                connection.scalars(insert(table).returning(table.c.trial_id, sort_by_parameter_order=True), rows)
            )
        return [connection.execute(insert(table), row).inserted_primary_key[0] for row in rows]  # type: ignore[index]

    def end(self, endings: Sequence[Ending]) -> list[tuple[FrozenTrial, bool]]:
        now = datetime.now()
        running = self._transaction(lambda connection: self._end(connection, endings, now))
        ids = {ending.trial_id for ending in endings}
        self._unfinished -= ids
        others = {trial._trial_id: trial for trial in self.read(sorted(ids - running))}
        return [(others.get(e.trial_id) or _ended(e, now), e.trial_id in running) for e in endings]

    def _end(self, connection: Connection, endings: Sequence[Ending], now: datetime) -> set[int]:
        table = models.TrialModel.__table__
        ids = sorted(ending.trial_id for ending in endings)
        are_running = table.c.trial_id.in_(ids) & (table.c.state == TrialState.RUNNING)
        connection.execute(update(table).where(are_running).values(datetime_complete=_naive_utc(now)))  # a lock
        running = set(connection.scalars(select(table.c.trial_id).where(are_running)))
        told = [ending for ending in endings if ending.trial_id in running]
        self._insert_curves(connection, {ending.trial_id: ending.curve for ending in told})
        for model, attrs in (
            (models.TrialUserAttributeModel, [(e.trial_id, e.user_attrs) for e in told]),
            (models.TrialSystemAttributeModel, [(e.trial_id, e.system_attrs) for e in told]),
        ):
            _insert(connection, model, _attributes(attrs))
        _insert(connection, models.TrialValueModel, [_value(e) for e in told if e.value is not None])
        for state in {ending.state for ending in told}:
            these = table.c.trial_id.in_([e.trial_id for e in told if e.state == state])
            connection.execute(update(table).where(these).values(state=state))
        return running

    def _insert_curves(self, connection: Connection, curves: Curves) -> None:
        stored = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
        rows = [
            {
                "trial_id": trial_id,
                "step": step,
                "intermediate_value": stored(value)[0],
                "intermediate_value_type": stored(value)[1],
            }
            for trial_id, curve in curves.items()
            for step, value in curve.items()
        ]
        _insert(connection, models.TrialIntermediateValueModel, rows)

    def write(self, curves: Curves, attrs: Mapping[str, Any]) -> None:
        self._transaction(lambda connection: self._write(connection, curves, attrs))

    def _write(self, connection: Connection, curves: Curves, attrs: Mapping[str, Any]) -> None:
        table, values = models.StudyUserAttributeModel.__table__, models.TrialIntermediateValueModel.__table__
        for name, attr in attrs.items():
            text = json.dumps(attr)
            this = (table.c.study_id == self._study_id) & (table.c.key == name)
            if not connection.execute(update(table).where(this).values(value_json=text)).rowcount:
                connection.execute(insert(table), {"study_id": self._study_id, "key": name, "value_json": text})
        if not curves:
            return
        trials = models.TrialModel.__table__.c
        are_running = trials.trial_id.in_(curves) & (trials.state == TrialState.RUNNING)
        running = connection.scalars(select(trials.trial_id).where(are_running).with_for_update()).all()
        # A write whose answer was lost with the connection may have been done.
        there = connection.execute(select(values.c.trial_id, values.c.step).where(values.c.trial_id.in_(running)))
        written = {tuple(row) for row in there}
        missing = {
            trial_id: {step: value for step, value in curves[trial_id].items() if (trial_id, step) not in written}
            for trial_id in running
        }
        self._insert_curves(connection, missing)


def _insert(connection: Connection, model: Any, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(insert(model.__table__), rows)


def _params(trial: FrozenTrial) -> list[dict[str, Any]]:
    return [
        {
            "trial_id": trial._trial_id,
            "param_name": name,
            "param_value": trial.distributions[name].to_internal_repr(value),
            "distribution_json": _as_json(trial.distributions[name]),
        }
        for name, value in trial.params.items()
    ]


def _attributes(attrs: Iterable[tuple[int, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    return [
        {"trial_id": trial_id, "key": name, "value_json": json.dumps(attr)}
        for trial_id, given in attrs
        for name, attr in given.items()
    ]


def _value(ending: Ending) -> dict[str, Any]:
    value, kind = models.TrialValueModel.value_to_stored_repr(ending.value)
    return {"trial_id": ending.trial_id, "objective": 0, "value": value, "value_type": kind}


def _ended(ending: Ending, now: datetime) -> FrozenTrial:
    """Return an ended trial as the storage would give it."""
    trial = copy.copy(ending.trial)
    trial.state, trial.datetime_complete = ending.state, now
    trial.value = ending.value
    trial.user_attrs = {**trial.user_attrs, **json.loads(json.dumps(dict(ending.user_attrs)))}
    trial.system_attrs = {**trial.system_attrs, **ending.system_attrs}
    return trial


@cache
def _as_json(distribution: BaseDistribution) -> str:
    return distribution_to_json(distribution)


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _naive_utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None)
