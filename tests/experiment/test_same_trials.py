"""Two runs with one seed give one answer, with any number of processes and at any speed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dropsearch.experiment.tasks.search import searched
from dropsearch.training.multiprocess import can_fork
from tests.experiment.conftest import LIGHT, composed

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not can_fork(), reason="processes are forked on Linux only")]
SETTINGS = (
    *LIGHT,
    "arms=[none,dropout]",
    "study.n_trials=9",
    "sampler.n_startup_trials=3",
    "pruner.n_startup_trials=2",
    "pruner.warmup_epochs=1",
    "trainer.max_epochs=3",
    "confirm.top_k=1",
    "engine=vectorized",
    # Widths may differ in the roundings of float32 on some processors; here it is the order of events that is tested.
    "trainer.precision=64-true",
)
TIMES = ("seconds", "opened_at", "started", "commands", "output_dir", "processes", "width", "engine")


def results(out: Path, *overrides: str) -> Any:
    """Run a study and return its results.json without times, paths, and what trained it."""
    searched(composed(*SETTINGS, *overrides, f"output_dir={out}"))
    text = (out / "results.json").read_text().replace(str(out), "OUT")
    return without(json.loads(text))


def without(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without(each) for name, each in value.items() if name not in TIMES}
    return [without(each) for each in value] if isinstance(value, list) else value


TWO = ("engine.processes=2", "engine.width=2")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A run in two processes: its folder and results."""
    out = tmp_path_factory.mktemp("first")
    return out, results(out, *TWO)


def test_two_runs_in_two_processes_give_one_answer(first: tuple[Path, Any], tmp_path: Path) -> None:
    assert results(tmp_path, *TWO) == first[1]


def test_width_and_processes_change_no_trial(first: tuple[Path, Any], tmp_path: Path) -> None:
    results(tmp_path, "engine.processes=1", "engine.width=5")
    assert found(tmp_path) == found(first[0])


def found(out: Path) -> Any:
    """Return the parameters and the state of each trial, by study and key."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(out / "study.journal")))
    studies = [optuna.load_study(study_name=name, storage=storage) for name in optuna.get_all_study_names(storage)]
    return {
        study.study_name: {
            tuple(trial.user_attrs.get(name) for name in ("index", "configuration", "seed")): (
                trial.params,
                trial.state,
            )
            for trial in study.get_trials(deepcopy=False)
        }
        for study in studies
    }
