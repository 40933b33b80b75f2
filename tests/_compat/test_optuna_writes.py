"""Many trials in one write: the same in a journal, a database and any other storage, and as Optuna reads it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from dropsearch._compat.optuna_bulk import Ending
from dropsearch._compat.optuna_writes import bulk
from dropsearch.study.storage import open_storage

DISTRIBUTIONS = {
    "rate": FloatDistribution(0.0, 0.9),
    "width": IntDistribution(8, 64, log=True),
    "norm": CategoricalDistribution(["none", "batch"]),
}


@pytest.fixture(params=["journal", "sqlite", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseStorage]:
    if request.param == "memory":
        yield InMemoryStorage()
        return
    url = None if request.param == "journal" else f"sqlite:///{tmp_path}/study.db"
    opened = open_storage(url, tmp_path / "study.journal")
    yield opened
    if request.param == "sqlite":
        opened.engine.dispose()  # type: ignore[attr-defined]


@pytest.fixture
def study(storage: BaseStorage) -> optuna.Study:
    return optuna.create_study(storage=storage, study_name="s")


def template(index: int) -> FrozenTrial:
    return create_trial(
        state=TrialState.RUNNING,
        params={"rate": 0.1 * index, "width": 8 + index, "norm": ("none", "batch")[index % 2]},
        distributions=DISTRIBUTIONS,
        user_attrs={"index": index, "owner": "me"},
    )


def test_trials_are_created_whole_and_numbered_in_order(storage: BaseStorage, study: optuna.Study) -> None:
    created, _ = bulk(storage, of(storage)).create([template(index) for index in range(3)])
    trials = study.get_trials()
    assert [t.number for t in created] == [t.number for t in trials] == [0, 1, 2]
    for index, trial in enumerate(trials):
        assert trial.params == template(index).params
        assert trial.distributions == DISTRIBUTIONS
        assert trial.user_attrs == {"index": index, "owner": "me"}
        assert trial.state == TrialState.RUNNING
        assert trial.datetime_start is not None


def test_choices_that_are_equal_keep_their_types(storage: BaseStorage, study: optuna.Study) -> None:
    choices = {"flag": (True, False), "count": (1, 0), "share": (1.0, 0.0)}
    ranges = {name: CategoricalDistribution(given) for name, given in choices.items()}
    values = {name: given[0] for name, given in choices.items()}
    created, _ = bulk(storage, of(storage)).create([running(values, ranges) for _ in range(2)])
    for trial in (*created, *study.get_trials()):
        assert {name: type(value) for name, value in trial.params.items()} == {
            "flag": bool,
            "count": int,
            "share": float,
        }
        assert [type(given.choices[1]) for given in trial.distributions.values()] == [bool, int, float]  # type: ignore[attr-defined]


def running(params: dict[str, Any], distributions: dict[str, Any]) -> FrozenTrial:
    return create_trial(state=TrialState.RUNNING, params=params, distributions=distributions)


def of(storage: BaseStorage) -> int:
    return storage.get_study_id_from_name("s")


def test_trials_end_with_all_that_was_reported(storage: BaseStorage, study: optuna.Study) -> None:
    writes = bulk(storage, of(storage))
    created, _ = writes.create([template(index) for index in range(3)])
    for trial in created:
        trial.intermediate_values = {0: 2.0, 1: float("nan"), 2: float("inf")}
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    endings = [
        Ending(
            trial, state, value, {0: 2.0, 1: float("nan"), 2: float("inf")}, {"result": {"curve": [1.5]}}, {"rung": 2}
        )
        for trial, state, value in zip(created, states, (1.0, 2.0, None), strict=True)
    ]
    ended = writes.end(endings)
    trials = study.get_trials()
    assert [was_running for _, was_running in ended] == [True] * 3
    for trial, (returned, _), ending in zip(trials, ended, endings, strict=True):
        assert trial.state == returned.state == ending.state
        assert trial.value == returned.value == ending.value
        assert repr(trial.intermediate_values) == repr(returned.intermediate_values) == "{0: 2.0, 1: nan, 2: inf}"
        assert trial.user_attrs["result"] == returned.user_attrs["result"] == {"curve": [1.5]}
        assert trial.system_attrs == returned.system_attrs == {"rung": 2}
        assert trial.datetime_complete is not None


def test_a_trial_that_another_process_ended_is_unchanged_and_the_others_end(
    storage: BaseStorage, study: optuna.Study
) -> None:
    writes = bulk(storage, of(storage))
    created, _ = writes.create([template(index) for index in range(3)])
    storage.set_trial_state_values(created[1]._trial_id, TrialState.FAIL)
    ended = writes.end([Ending(t, TrialState.COMPLETE, 1.0, {0: 1.0}, {"result": 1}) for t in created])
    assert [was_running for _, was_running in ended] == [True, False, True]
    assert [t.state.name for t, _ in ended] == [t.state.name for t in study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert study.trials[1].user_attrs == template(1).user_attrs
    assert study.trials[1].intermediate_values == {}


def test_a_look_returns_what_others_created_and_ended(storage: BaseStorage, study: optuna.Study) -> None:
    writes = bulk(storage, of(storage))
    assert writes.look() == []
    theirs = study.ask()
    assert [t.number for t in writes.look()] == [0]
    ours, crowded = writes.create([template(1)])
    assert not crowded or isinstance(storage, InMemoryStorage)
    assert [t.number for t in ours] == [1]
    study.tell(theirs, 1.0)
    assert [t.number for t in writes.look() if t.state == TrialState.COMPLETE] == [0]
    assert writes.look() == []


def test_a_process_learns_of_trials_created_before_its_own(storage: BaseStorage, study: optuna.Study) -> None:
    writes = bulk(storage, of(storage))
    writes.look()
    study.ask()
    ours, crowded = writes.create([template(0), template(1)])
    assert crowded
    assert [t.number for t in ours] == [1, 2]
    assert 0 in [t.number for t in writes.look()]


def test_running_curves_and_notes_are_written_at_once_and_may_be_written_twice(
    storage: BaseStorage, study: optuna.Study
) -> None:
    writes = bulk(storage, of(storage))
    created, _ = writes.create([template(index) for index in range(2)])
    storage.set_trial_state_values(created[1]._trial_id, TrialState.FAIL)
    for _ in range(2):
        writes.write({t._trial_id: {0: 1.0, 1: 0.5} for t in created}, {"lease.me": 1, "other": "x"})
    writes.write({}, {"lease.me": 2})
    assert [t.intermediate_values for t in study.get_trials()] == [{0: 1.0, 1: 0.5}, {}]
    assert study.user_attrs == writes.attrs() == {"lease.me": 2, "other": "x"}


def test_a_journal_takes_any_number_of_records_with_one_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage, synced = open_storage(None, tmp_path / "study.journal"), []
    optuna.create_study(storage=storage, study_name="s")
    writes = bulk(storage, 0)
    monkeypatch.setattr("os.fsync", synced.append)
    created, _ = writes.create([template(index) for index in range(5)])
    assert len(synced) == 1
    writes.end([Ending(t, TrialState.COMPLETE, 1.0, dict.fromkeys(range(9), 1.0), {"result": 1}) for t in created])
    assert len(synced) == 2
