from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dropsearch.core.errors import InputError
from dropsearch.tracking import TRACKERS, Tracker, make_tracker
from tests.tracking.tracked_studies import DATA, make_curve, make_result, make_spec, make_summary

CONF = Path(__file__).parents[2] / "conf" / "tracking"


def test_a_tracker_takes_everything_and_misses_nothing():
    tracker: Tracker = Tracker()
    tracker.connect("e")
    tracker.start(study="s", study_id="1d", config={}, tags={}, data=DATA)
    tracker.epoch(make_spec(), make_curve()[0])
    tracker.end(make_result())
    tracker.finish(make_summary(), [])
    tracker.close("FAILED")
    assert tracker.missing(["dropout/3"]) == set()
    assert tracker.info == {}
    assert not tracker.problems


def test_tracking_none_tracks_nothing(tmp_path: Path):
    assert isinstance(make_tracker("none", uri=None, output_dir=tmp_path), Tracker)


def test_an_unknown_kind_is_named_with_its_close_match(tmp_path: Path):
    with pytest.raises(
        InputError, match=r'mlflow, wandb, tensorboard, none, got \'mlfow\' \(did you mean "mlflow"\?\)'
    ):
        make_tracker("mlfow", uri=None, output_dir=tmp_path)


def test_mlflow_is_imported_only_for_an_mlflow_tracker():
    program = (
        "import sys, pathlib, dropsearch.tracking as t;"
        "t.make_tracker('none', uri=None, output_dir=pathlib.Path('.'));"
        "assert not {'mlflow', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_the_environment_is_read_when_the_tracker_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    with pytest.raises(InputError, match=r"got \./mlruns \(MLFLOW_TRACKING_URI\)"):
        make_tracker("mlflow", uri=None, output_dir=tmp_path)


@pytest.mark.parametrize("name", TRACKERS)
def test_each_file_in_conf_names_its_own_kind(name: str):
    group = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert group == {"name": name, "uri": None, "log_model": name == "mlflow"}
