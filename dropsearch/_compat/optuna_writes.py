"""Bulk writes to any Optuna storage.

`optuna_journal` and `optuna_database` use private APIs of Optuna. Other storages, and versions of Optuna
without those APIs, are written here through the public API, one value at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from dropsearch._compat.optuna_bulk import Bulk, Curves, Ending
from dropsearch._compat.optuna_database import DatabaseBulk, has_bulk_tables
from dropsearch._compat.optuna_journal import JournalBulk, has_bulk_journal


def bulk(storage: BaseStorage, study_id: int) -> Bulk:
    """Return the fastest available bulk writer for a study."""
    if isinstance(storage, RDBStorage) and has_bulk_tables(storage):
        return DatabaseBulk(storage, study_id)
    if isinstance(storage, JournalStorage) and has_bulk_journal(storage):
        return JournalBulk(storage, study_id)
    return _Plain(storage, study_id)


def filtered(study: optuna.Study, trial: FrozenTrial) -> optuna.Study:
    """Return the study as the sampler should see it for a trial: with Hyperband, only trials of the same bracket."""
    choose = getattr(optuna.pruners, "_filter_study", None)
    return study if choose is None else choose(study, trial)


class _Plain:
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
