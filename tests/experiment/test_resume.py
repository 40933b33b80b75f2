"""Studies that go on: to a larger total, after Ctrl-C, and not at all where they would become another study."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import optuna
import pytest

import dropsearch
from dropsearch.core.errors import InputError
from dropsearch.core.records import TrialResult
from dropsearch.experiment.tasks import run
from tests.experiment.conftest import LIGHT, composed, shell_lines, trials_told
from tests.experiment.forked_runs import RunForker
from tests.user_modules import data, nets

TWO_ARMS = (*LIGHT, "arms=[none,dropout]")
COMPLETE = f'"state":{optuna.trial.TrialState.COMPLETE.value},"values"'
"""Stands in a journal from the first completed trial on."""


def results(out: Path) -> dict[str, Any]:
    return json.loads((out / "results.json").read_text())


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], dict[str, Any], list[TrialResult]]:
    """A study of 3 trials an arm, continued to 5: the folder, both results, and what the second run trained."""
    out = tmp_path_factory.mktemp("grown") / "out"
    assert run(composed(*TWO_ARMS, f"output_dir={out}")) == 0
    before = results(out)
    with trials_told() as trained:
        assert run(composed(*TWO_ARMS, "study.n_trials=5", f"output_dir={out}")) == 0
    return out, before, results(out), trained


Grown = tuple[Path, dict[str, Any], dict[str, Any], list[TrialResult]]


def test_a_larger_total_is_reached_and_not_passed(grown: Grown):
    _, before, after, trained = grown
    for arm in ("none", "dropout"):
        assert len(before["arms"][arm]["trials"]) == 3
        assert len(after["arms"][arm]["trials"]) == 5
        assert sum(r.spec.arm == arm and r.spec.phase == "search" for r in trained) == 2


def test_what_was_done_stays_as_it_was(grown: Grown):
    _, before, after, _ = grown
    for arm in ("none", "dropout"):
        assert after["arms"][arm]["trials"][:3] == before["arms"][arm]["trials"]


def test_only_configurations_that_are_new_among_the_best_are_confirmed(grown: Grown):
    _, before, after, trained = grown
    for arm in ("none", "dropout"):
        old = {c["number"]: c for c in before["arms"][arm]["confirmed"]}
        new = {c["number"]: c for c in after["arms"][arm]["confirmed"]}
        retrained = {r.spec.configuration for r in trained if r.spec.arm == arm and r.spec.phase == "confirm"}
        assert retrained == set(new) - set(old)
        assert all(new[number] == old[number] for number in set(new) & set(old))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("space.high=0.5", "space.high"),
        ("model.hidden=[8]", "model.hidden"),
        ("seed=1", "seed"),
        ("trainer.max_epochs=3", "trainer.max_epochs"),
        ("data=mnist1d", "data"),
    ],
)
def test_another_study_under_the_same_name_is_refused_by_the_key_that_differs(grown: Grown, change: str, key: str):
    out = grown[0]
    journal = (out / "study.journal").read_bytes()
    with pytest.raises(InputError) as caught:
        run(composed(*TWO_ARMS, change, "study.name=mlp-digits", f"output_dir={out}"))
    message = str(caught.value)
    assert message.startswith(key)
    assert "must be the same as when study mlp-digits/none began" in message
    assert "choose another study.name" in message
    assert (out / "study.journal").read_bytes() == journal


def test_two_studies_in_one_folder_keep_their_own_weights(tmp_path: Path):
    one = (*LIGHT, "arms=[none]", "study.n_trials=1", "confirm.top_k=1", f"output_dir={tmp_path}")
    assert run(composed(*one, "study.name=a")) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "checkpoints").rglob("*.ckpt")}
    assert len(before) == 2
    assert run(composed(*one, "study.name=b", "model.hidden=[8]")) == 0
    assert {path: path.read_bytes() for path in before} == before


def stop_after_a_trial(
    run_forker: RunForker, folder: Path, *overrides: str, by: signal.Signals = signal.SIGINT
) -> subprocess.CompletedProcess[str]:
    """Send a signal to a run and its workers when a trial stands complete in the journal of its study."""
    journal = folder / "outputs" / "mlp-digits" / "study.journal"
    return run_forker.python(folder, "-m", "dropsearch", *overrides, stop_by=by, stop_at=COMPLETE, where=str(journal))


@pytest.mark.parametrize("engine", [["engine=vectorized", "engine.processes=2"], ["engine=sequential"]])
def test_sigterm_to_a_run_and_its_workers_ends_it_like_ctrl_c(run_forker: RunForker, tmp_path: Path, engine: list[str]):
    small = [override for override in TWO_ARMS if not override.startswith(("engine", "study"))]
    overrides = [*small, *engine, "study.n_trials=8", "trainer.max_epochs=4"]
    ended = stop_after_a_trial(run_forker, tmp_path, *overrides, by=signal.SIGTERM)
    assert ended.returncode == 130, ended.stderr
    assert "Traceback" not in ended.stderr
    assert results(tmp_path / "outputs" / "mlp-digits")["complete"] is False
    assert "To continue where this stopped:" in ended.stdout


def test_ctrl_c_ends_cleanly_and_the_last_line_goes_on(run_forker: RunForker, tmp_path: Path):
    small = [override for override in TWO_ARMS if not override.startswith(("engine", "study"))]
    overrides = [*small, "engine=vectorized", "engine.width=4", "study.n_trials=8", "trainer.max_epochs=4"]
    stopped = stop_after_a_trial(run_forker, tmp_path, *overrides)
    out = stopped.stdout
    assert stopped.returncode == 130, stopped.stderr
    assert "Traceback" not in stopped.stderr
    partial = results(tmp_path / "outputs" / "mlp-digits")
    done = {arm: len(outcome["trials"]) for arm, outcome in partial["arms"].items()}
    assert partial["complete"] is False
    assert 1 <= sum(done.values()) < 16
    assert "Arms: " in out
    assert "Provisional: the run was interrupted" in out
    assert all(outcome["winner"] is None or not outcome["winner"]["test_acc"] for outcome in partial["arms"].values())

    ended = run_forker.shell(tmp_path, shell_lines(out)[-1])
    assert ended.returncode == 0, ended.stderr
    whole = results(tmp_path / "outputs" / "mlp-digits")
    assert whole["complete"] is True
    assert {arm: len(outcome["trials"]) for arm, outcome in whole["arms"].items()} == {"none": 8, "dropout": 8}
    for arm, outcome in partial["arms"].items():
        assert [t for t in whole["arms"][arm]["trials"] if t["number"] in {p["number"] for p in outcome["trials"]}] == (
            outcome["trials"]
        )


def test_layers_that_have_changed_are_refused(tmp_path: Path) -> None:
    """The arguments are the same; the class builds other layers."""
    searched = {"n_trials": 2, "max_epochs": 1, "arms": ["none"], "confirm_seeds": 1, "output_dir": tmp_path}

    def make(width: int) -> type[nets.LitNet]:
        class Net(nets.LitNet):
            def __init__(self) -> None:
                super().__init__(width=width)

        return Net

    dropsearch.search(make(8), data.Digits(), overrides=["evidence=off"], tracking="none", **searched)
    with pytest.raises(InputError, match=r"the model's weights must be the same as when .* \([\d,]+ in 4 tensors"):
        dropsearch.search(make(9), data.Digits(), overrides=["evidence=off"], tracking="none", **searched)
