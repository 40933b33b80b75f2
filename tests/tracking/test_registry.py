"""What trackers write, read back with the readers of those whom it is written for."""

from __future__ import annotations

import csv
import struct
import time
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger

from dropsearch.config import schema
from dropsearch.config.command_line import with_user_targets
from dropsearch.core.errors import InputError
from dropsearch.core.records import EpochMetrics, TrialResult
from dropsearch.tracking import TRACKERS, Tracker, check_extras, make_tracker
from dropsearch.tracking.lightning_logger import LoggerTracker
from tests.tracking.tracked_studies import DATA, make_curve, make_result, make_spec, make_summary

CONFIG = {"study": {"n_trials": 3}, "arms": ["none", "dropout"]}


def logged(number: int = 3) -> TrialResult:
    """A trial of a module that logs a metric of its own."""
    curve = tuple(EpochMetrics(n, 0.5, 0.6, 1.0 - n / 10, val_acc=0.5, logged={"val_f1": n / 10}) for n in range(3))
    return make_result(number, curve=curve)


def track(tracker: Any, *results: TrialResult, finish: bool = True) -> None:
    tracker.connect("mlp-digits")
    tracker.start(study="first", study_id="1d", config=CONFIG, tags={}, data=DATA)
    for result in results:
        for metrics in result.curve:
            tracker.epoch(result.spec, metrics)
        tracker.end(result)
    if finish:
        tracker.finish(make_summary(), [])


def test_the_configuration_knows_every_tracker() -> None:
    assert tuple(TRACKERS) == schema.TRACKERS


def test_a_list_on_the_command_line_is_a_list_of_names() -> None:
    assert with_user_targets(["tracking=[mlflow,wandb]", "tracking=none"]) == [
        "tracking.name=[mlflow,wandb]",
        "tracking=none",
    ]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dropsearch.core.errors.find_spec", lambda name: None if name == "wandb" else name)
    with pytest.raises(InputError, match=r'^tracking=wandb needs wandb .* pip install "dropsearch\[wandb\]"$'):
        check_extras(["tensorboard", "wandb"])


class Noting(Tracker):
    """Notes the trials that it is given, and lacks those of an earlier run that it is told of."""

    def __init__(self, lacks: set[str]) -> None:
        super().__init__()
        self.lacks, self.ended = lacks, []

    def missing(self, keys: Any) -> set[str]:
        return self.lacks & set(keys)

    def end(self, result: TrialResult) -> None:
        self.ended.append(result.spec.key)


def test_several_trackers_each_get_what_they_lack(tmp_path: Path) -> None:
    one, other = Noting({"dropout/3"}), Noting(set())
    both = make_tracker("none", uri=None, output_dir=tmp_path, more=[one, other])
    assert both.missing(["dropout/3", "dropout/4"]) == {"dropout/3"}
    both.end(make_result(3))
    both.end(make_result(5))
    assert (one.ended, other.ended) == (["dropout/3", "dropout/5"], ["dropout/5"])


def test_one_tracker_is_no_list(tmp_path: Path) -> None:
    assert isinstance(make_tracker(["none", "none"], uri=None, output_dir=tmp_path), Tracker)


def tensorboard(folder: Path) -> Any:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return found


def test_tensorboard_reads_curves_and_hyperparameters(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    tracker = make_tracker("tensorboard", uri=None, output_dir=tmp_path)
    track(tracker, logged())
    assert not tracker.problems
    found = tensorboard(tmp_path / "tensorboard" / "dropout" / "3")
    assert [(e.step, round(e.value, 6)) for e in found.Scalars("val_f1")] == [(0, 0.0), (1, 0.1), (2, 0.2)]
    assert [round(e.value, 6) for e in found.Scalars("val_loss")] == [1.0, 0.9, 0.8]
    assert found.Scalars("dropsearch/val_loss_best")[0].value == pytest.approx(0.8)
    assert set(found.PluginTagToContent("hparams")) >= {"_hparams_/session_start_info"}
    study = tensorboard(tmp_path / "tensorboard" / "study")
    assert study.Scalars("dropsearch/dropout/test_acc")[0].value == pytest.approx(0.85)


def test_tensorboard_shows_a_long_trial_while_it_trains(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from dropsearch.tracking.tensorboard_tracker import TensorBoardTracker

    now = [0.0]
    tracker = TensorBoardTracker(tmp_path, clock=lambda: now[0])
    tracker.start(study="first", study_id="1d", config=CONFIG)
    for metrics in make_curve(3):
        tracker.epoch(make_spec(), metrics)
        now[0] += 15
    found = tensorboard(tmp_path / "tensorboard" / "dropout" / "3")
    assert [event.step for event in found.Scalars("val_loss")] == [0, 1, 2]
    tracker.end(make_result(curve=make_curve(3)))
    found.Reload()
    assert [event.step for event in found.Scalars("val_loss")] == [0, 1, 2]


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_the_next_run_writes_what_is_missing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = make_tracker(name, uri=None, output_dir=tmp_path)
    track(tracker, make_result(3))
    again = make_tracker(name, uri=None, output_dir=tmp_path)
    track(again, finish=False)
    assert again.missing(["dropout/3", "dropout/4"]) == {"dropout/4"}
    again.close()


def wandb_records(folder: Path) -> list[Any]:
    """Return the records of an offline run, as wandb's own messages; they lie in the frames of a LevelDB log."""
    from wandb.proto import wandb_internal_pb2

    (path,) = folder.glob("*.wandb")
    data, at, found, parts = path.read_bytes(), 7, [], b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no frame begins in the last bytes of a block
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            found.append(record)
            parts = b""
    return found


def whole_run(folder: Path) -> list[Any]:
    """Return the records of a run when it is written whole: wandb's process does so shortly after the run."""
    deadline = time.monotonic() + 300
    found: list[Any] = []
    while not any(record.HasField("exit") for record in found):
        assert time.monotonic() < deadline
        time.sleep(0.05)
        found = wandb_records(folder)
    return found


@pytest.mark.slow
def test_wandb_reads_an_offline_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr("sys.argv", ["dropsearch", "+model.password=planted-0815"])
    tracker = make_tracker("wandb", uri=None, output_dir=tmp_path)
    track(tracker, logged())
    assert not tracker.problems
    runs = [whole_run(folder) for folder in (tmp_path / "wandb").glob("offline-run-*")]
    by_name = {record.run.display_name: records for records in runs for record in records if record.HasField("run")}
    assert set(by_name) == {"study", "dropout/3"}
    trial = by_name["dropout/3"]
    rows = [{item.key or "/".join(item.nested_key): item.value_json for item in each.history.item} for each in trial]
    assert [float(row["val_f1"]) for row in rows if "val_f1" in row] == [0.0, 0.1, 0.2]
    (run,) = [record.run for record in trial if record.HasField("run")]
    assert run.run_group == "first"
    config = {item.key: item.value_json for record in trial for item in record.run.config.update}
    assert config["rate.input.dropout"] == "0.1"
    files = [path for path in (tmp_path / "wandb").rglob("*") if path.is_file()]
    assert [path for path in files if b"planted-0815" in path.read_bytes()] == [], "not the words of the command"


def test_an_unknown_wandb_mode_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(InputError, match="WANDB_MODE must be one of online, offline"):
        make_tracker("wandb", uri=None, output_dir=tmp_path).connect("mlp-digits")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_logger_gets_a_step_for_each_trial(tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, name="", version="all")
    tracker = LoggerTracker(logger)
    track(tracker, logged(3), logged(4))
    assert not tracker.problems
    rows = rows_of(tmp_path / "all" / "metrics.csv")
    assert [(row["step"], row["val_f1"], row["dropsearch/number"]) for row in rows[:2]] == [
        ("0", "0.2", "3.0"),
        ("1", "0.2", "4.0"),
    ]
    assert rows[-1]["dropsearch/dropout/test_acc"] == str((0.9 + 0.8) / 2)


def test_a_function_makes_a_logger_for_each_trial(tmp_path: Path) -> None:
    tracker = LoggerTracker(lambda spec: CSVLogger(tmp_path, name=spec.arm, version=str(spec.number)))
    track(tracker, logged(3), logged(4))
    assert not tracker.problems
    assert [row["val_f1"] for row in rows_of(tmp_path / "dropout" / "4" / "metrics.csv")[:3]] == ["0.0", "0.1", "0.2"]


def test_a_logger_that_fails_is_one_problem() -> None:
    class Failing:
        def log_metrics(self, *_: Any, **__: Any) -> None:
            raise OSError("disk full")

        log_hyperparams = finalize = log_metrics

    tracker = LoggerTracker(Failing())
    track(tracker, logged(3), logged(4))
    assert tracker.problems == ["the logger could not log everything: OSError: disk full"]


def test_no_logger_is_refused() -> None:
    with pytest.raises(InputError, match="logger must be a Lightning logger"):
        LoggerTracker("logs")
