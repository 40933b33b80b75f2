"""`task=retrain`: what it keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from dropsearch import SearchResult
from dropsearch.experiment.interruption import Interruption
from dropsearch.experiment.tasks.retrain import retrain
from tests.experiment.conftest import LIGHT, composed

GIVEN = (*LIGHT, "task=retrain", "retrain.arm=none", "retrain.seed=4", "trainer.max_epochs=1")


def retrained(folder: Path, *overrides: str) -> int:
    return retrain(composed(*GIVEN, f"output_dir={folder}", *overrides))


def state(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_retrainings_of_one_arm_and_seed_keep_folders_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert retrained(tmp_path) == 0
    first = state(tmp_path)
    assert {path.partition("/")[0] for path in first} == {"none-4"}
    assert retrained(tmp_path, "retrain.lr=0.02") == 0
    both = state(tmp_path)
    assert {path.partition("/")[0] for path in both} == {"none-4", "none-4-2"}
    assert {path: both[path] for path in first} == first
    assert str(tmp_path / "none-4-2") in capsys.readouterr().out
    assert retrained(tmp_path) == 0  # the same again takes no more room
    assert both.keys() == state(tmp_path).keys()
    lr = [SearchResult.load(tmp_path / name).summary.arms["none"].found.lr for name in ("none-4", "none-4-2")]
    assert lr == [0.001, 0.02]
    assert SearchResult.load(tmp_path / "none-4-2").load_best() is not None


def test_another_result_of_the_same_configuration_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The code of the module may have changed."""
    assert retrained(tmp_path) == 0
    first = state(tmp_path)
    monkeypatch.setattr("torch.nn.functional.relu", lambda x, inplace=False: x)
    assert retrained(tmp_path) == 0
    after = state(tmp_path)
    assert {path: after[path] for path in first} == first


def test_a_retraining_that_is_stopped_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert retrained(tmp_path) == 0
    first = state(tmp_path)

    class Stopped(Interruption):
        def __init__(self) -> None:
            self.requested = True

    monkeypatch.setattr("dropsearch.experiment.tasks.retrain.Interruption", Stopped)
    assert retrained(tmp_path) != 0
    assert "stopped: nothing was kept" in capsys.readouterr().out
    assert state(tmp_path) == first
