"""Bulk writes to Optuna's database storage: one transaction, one statement per table, through its private tables."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, insert, select, update  # comes with optuna
from sqlalchemy.exc import IntegrityError

from dropsearch._compat.optuna_bulk import FINISHED, Curves, Ending, as_json, ended, private_module

models = private_module("optuna.storages._rdb.models")
_T = TypeVar("_T")
_MOST_IN_A_LIST = 500
"""Maximum number of ids in a query; for more, all trials of the study are read."""


def has_bulk_tables(storage: RDBStorage) -> bool:
    """Return whether this version of Optuna has the private attributes that `DatabaseBulk` uses."""
    return models is not None and hasattr(storage, "_get_trials")


class DatabaseBulk:
    """Writes any number of trials in one transaction with one statement per table."""

    def __init__(self, storage: RDBStorage, study_id: int) -> None:
        self._storage, self._study_id = storage, study_id
        # When a connection drops, Optuna logs the whole query; `outage` reports it in one line.
        logging.getLogger("optuna.storages._rdb.storage").setLevel(logging.ERROR)
        self._last = -1
        self._unfinished: set[int] = set()

    def _transaction(self, act: Callable[[Connection], _T]) -> _T:
        for _ in range(3):  # another process may insert the same study attribute at the same time
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
        """Return the ids of new trials and of trials that ended."""
        trials = models.TrialModel.__table__.c
        ids = select(trials.trial_id)
        new = connection.scalars(ids.where(trials.study_id == self._study_id, trials.trial_id > self._last)).all()
        if not self._unfinished:
            return list(new), []
        ended = ids.where(trials.trial_id.in_(self._unfinished), trials.state.in_(FINISHED))
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
        """Prevent other processes from creating trials of the study until the transaction ends."""
        table = models.StudyModel.__table__
        this = table.c.study_id == self._study_id
        if self._storage.engine.name == "sqlite":  # no FOR UPDATE; SQLite locks at the first change
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
        return [(others.get(e.trial_id) or ended(e, now), e.trial_id in running) for e in endings]

    def _end(self, connection: Connection, endings: Sequence[Ending], now: datetime) -> set[int]:
        table = models.TrialModel.__table__
        ids = sorted(ending.trial_id for ending in endings)
        are_running = table.c.trial_id.in_(ids) & (table.c.state == TrialState.RUNNING)
        connection.execute(update(table).where(are_running).values(datetime_complete=_naive_utc(now)))  # a lock
        running = set(connection.scalars(select(table.c.trial_id).where(are_running)))
        open_endings = [ending for ending in endings if ending.trial_id in running]
        self._insert_curves(connection, {ending.trial_id: ending.curve for ending in open_endings})
        for model, attrs in (
            (models.TrialUserAttributeModel, [(e.trial_id, e.user_attrs) for e in open_endings]),
            (models.TrialSystemAttributeModel, [(e.trial_id, e.system_attrs) for e in open_endings]),
        ):
            _insert(connection, model, _attributes(attrs))
        _insert(connection, models.TrialValueModel, [_value(e) for e in open_endings if e.value is not None])
        for state in {ending.state for ending in open_endings}:
            these = table.c.trial_id.in_([e.trial_id for e in open_endings if e.state == state])
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
        # The connection may have dropped after a successful write.
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
            "distribution_json": as_json(trial.distributions[name]),
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


def _naive_utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(UTC).replace(tzinfo=None)
