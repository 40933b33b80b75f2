"""Bulk writes to Optuna's journal storage and a check of its lines, through its private record format and replay."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial

from dropsearch._compat.optuna_bulk import Curves, Ending, as_json, private_module, share

Operation: Any = getattr(private_module("optuna.storages.journal._storage"), "JournalOperation", None)


def has_bulk_journal(storage: JournalStorage) -> bool:
    """Return whether this version of Optuna has the private attributes that `JournalBulk` uses."""
    replay = getattr(storage, "_replay_result", None)
    return (
        Operation is not None
        and all(hasattr(storage, name) for name in ("_backend", "_thread_lock"))
        and all(hasattr(replay, name) for name in ("_trials", "_study_id_to_trial_ids", "worker_id", "log_number_read"))
    )


class JournalBulk:
    """Writes any number of records to a journal in one atomic append with one fsync."""

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
        for trial_id in new:
            share(trials[trial_id])
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
            for trial in created:
                share(trial)
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
            "distributions": {name: as_json(distribution) for name, distribution in distributions.items()},
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
        self._forget_offsets()
        return created, refused

    def _forget_offsets(self) -> None:
        """Drop all offsets of the backend except the next one, which is the only one that it uses."""
        offsets = getattr(self._storage._backend, "_log_number_offset", {})
        following = self._replay.log_number_read
        if following in offsets:
            kept = {0: 0, following: offsets[following]}
            offsets.clear()
            offsets.update(kept)


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def first_bad_line(journal: Path) -> int:
    """Return the number of the first invalid line, counted from 1, or 0 if all lines are valid."""
    try:
        replay = import_module("optuna.storages.journal._storage").JournalStorageReplayResult("reader-")
    except (ImportError, AttributeError):  # another version of Optuna
        replay = None
    with journal.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                assert isinstance(entry["op_code"], int)
                if replay is not None:
                    replay.apply_logs([entry])
            except Exception:  # Optuna raises various errors for an entry with missing fields
                return number
    return 0
