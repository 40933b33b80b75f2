from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dropsearch.core.errors import InputError
from dropsearch.core.records import ArmEvidence, EpochMetrics, Evidence
from dropsearch.tracking import make_tracker
from dropsearch.tracking.mlflow import mlflow_tracker
from dropsearch.tracking.mlflow.address import resolve
from dropsearch.tracking.mlflow.mlflow_tracker import MlflowTracker
from tests.tracking.tracked_studies import DATA, EXPERIMENT, make_curve, make_result, make_spec, make_summary

Begin = Callable[..., Any]
Find = Callable[..., dict[str, Any]]


def client_of(output_dir: Path) -> Any:
    from mlflow import MlflowClient

    uri = f"sqlite:///{output_dir / 'mlflow.db'}"
    return MlflowClient(uri, uri)


@contextlib.contextmanager
def server_down(output_dir: Path) -> Iterator[None]:
    """Take MLflow's table of runs away: every write fails until it is back."""
    with contextlib.closing(sqlite3.connect(output_dir / "mlflow.db")) as connection:
        connection.execute("ALTER TABLE runs RENAME TO runs_that_are_away")
        connection.commit()
        yield
        connection.execute("ALTER TABLE runs_that_are_away RENAME TO runs")
        connection.commit()


def test_runs_stand_under_one_another(begin: Begin, find: Find):
    tracker = begin()
    tracker.end(make_result(3))
    tracker.end(make_result(spec=make_spec(12, phase="confirm", configuration=3)))
    tracker.finish(make_summary(), [])
    runs = find()
    parents = {name: run.data.tags.get("mlflow.parentRunId") for name, run in runs.items()}
    ids = {name: run.info.run_id for name, run in runs.items()}
    assert parents == {
        "first": None,
        "none": ids["first"],
        "dropout": ids["first"],
        "dropout/3": ids["dropout"],
        "dropout confirm": ids["dropout"],
        "dropout/confirm/12": ids["dropout confirm"],
    }
    kinds = {name: run.data.tags["dropsearch.kind"] for name, run in runs.items()}
    assert kinds == {
        "first": "parent",
        "none": "arm",
        "dropout": "arm",
        "dropout/3": "trial",
        "dropout confirm": "confirm",
        "dropout/confirm/12": "trial",
    }
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def test_a_repetition_of_a_search_stands_under_its_arm_with_its_trials_below(begin: Begin, find: Find):
    tracker = begin()
    tracker.end(make_result(3))
    tracker.end(make_result(spec=make_spec(3, repeat=2)))
    tracker.finish(make_summary(), [])
    runs = find()
    assert runs["dropout repeat 2"].data.tags["dropsearch.kind"] == "repeat"
    assert runs["dropout repeat 2"].data.tags["mlflow.parentRunId"] == runs["dropout"].info.run_id
    assert runs["dropout/repeat-2/3"].data.tags["mlflow.parentRunId"] == runs["dropout repeat 2"].info.run_id
    assert runs["dropout/3"].data.tags["mlflow.parentRunId"] == runs["dropout"].info.run_id


def test_a_trials_run_holds_its_parameters_its_curves_and_its_best_values(begin: Begin, find: Find, output_dir: Path):
    tracker = begin()
    for metrics in make_curve():
        tracker.epoch(make_spec(), metrics)
    tracker.end(make_result())
    tracker.close()
    run = find()["dropout/3"]
    assert run.data.params["rate.hidden1.dropout:2"] == "0.5"
    assert run.data.tags["dropsearch.key"] == "dropout/3"
    assert run.data.metrics["dropsearch/val_loss_best"] == make_curve()[2].val_loss
    history = client_of(output_dir).get_metric_history(run.info.run_id, "val_loss")
    assert [(point.step, point.value) for point in history] == [(m.epoch, m.val_loss) for m in make_curve()]


def test_a_runs_duration_is_the_trials(begin: Begin, find: Find):
    tracker = begin()
    tracker.end(make_result(seconds=123.456))
    tracker.close()
    info = find()["dropout/3"].info
    assert info.end_time - info.start_time == 123456


@pytest.mark.parametrize(("state", "status"), [("COMPLETE", "FINISHED"), ("PRUNED", "KILLED"), ("FAIL", "FAILED")])
def test_a_trial_has_the_matching_mlflow_status(begin: Begin, find: Find, state: Any, status: str):
    tracker = begin()
    tracker.end(make_result(state=state, reason="because"))
    tracker.close()
    run = find()["dropout/3"]
    assert run.info.status == status
    assert run.data.tags["dropsearch.reason"] == "because"


def test_losses_that_are_not_finite_are_written(begin: Begin, find: Find):
    tracker = begin()
    tracker.end(make_result(state="FAIL", curve=(EpochMetrics(0, math.inf, math.nan, math.inf),)))
    tracker.close()
    metrics = find()["dropout/3"].data.metrics
    assert metrics["val_loss"] > 1e308
    assert math.isnan(metrics["dropsearch/train_loss_as_trained"])
    assert tracker.problems == []


def test_short_trials_are_not_there_before_they_end(begin: Begin, find: Find):
    tracker = begin()
    for metrics in make_curve():
        tracker.epoch(make_spec(), metrics)
    assert tracker._writer.wait()
    assert "dropout/3" not in find()


def test_the_curves_of_a_long_trial_are_there_while_it_runs(begin: Begin, find: Find, output_dir: Path):
    tracker = begin(flush_seconds=0.0)
    for metrics in make_curve()[:3]:
        tracker.epoch(make_spec(), metrics)
    assert tracker._writer.wait()
    run = find()["dropout/3"]
    assert run.info.status == "RUNNING"
    assert run.data.metrics["val_loss"] == make_curve()[2].val_loss
    tracker.end(make_result())
    tracker.close()
    run = find()["dropout/3"]
    history = client_of(output_dir).get_metric_history(run.info.run_id, "val_loss")
    assert [point.step for point in history] == [0, 1, 2, 3]
    assert run.info.end_time - run.info.start_time == 2500


def test_a_trial_told_twice_is_written_once(begin: Begin, find: Find):
    tracker = begin()
    tracker.end(make_result())
    tracker.end(make_result())
    tracker.close()
    assert find()["dropout/3"].info.status == "FINISHED"


def test_the_parent_run_holds_the_answer(begin: Begin, find: Find, output_dir: Path):
    tracker = begin(model={"name": "mlp"})
    (output_dir / "figures").mkdir()
    (output_dir / "best").mkdir()
    for name in ("figures/curves.png", "best/dropout.yaml", "results.json"):
        (output_dir / name).write_text("{}")
    loose = output_dir.parent / "loose.png"
    loose.write_text("")
    paths = [output_dir / "figures", output_dir / "best" / "dropout.yaml", output_dir / "results.json", loose]
    tracker.finish(make_summary(), paths)
    run = find()["first"]
    assert run.data.params["model.name"] == "mlp"
    assert run.data.params["dropout.chosen_rate.hidden1.dropout:2"] == "0.5"
    assert run.data.metrics["dropsearch/dropout/test_acc"] == pytest.approx(0.85)
    assert run.data.metrics["dropsearch/dropout/val_loss_confirmed"] == 0.5
    assert run.data.tags["mlflow.source.git.commit"] == "0" * 40
    assert run.data.tags["versions.torch"] == "2.13"
    assert "| dropout | 2 |" in run.data.tags["mlflow.note.content"]
    client = client_of(output_dir)
    assert {
        file.path for folder in (None, "best", "figures") for file in client.list_artifacts(run.info.run_id, folder)
    } == {
        "arms.json",
        "best",
        "best/dropout.yaml",
        "config.yaml",
        "figures",
        "figures/curves.png",
        "figures/loose.png",
        "results.json",
    }
    assert tracker.problems == []


def test_mlflow_reads_the_table_of_arms(begin: Begin, find: Find, output_dir: Path, monkeypatch: pytest.MonkeyPatch):
    tracker = begin()
    tracker.finish(make_summary(), [])
    run = find()["first"]
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [{"path": "arms.json", "type": "table"}]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.info["tracking_uri"])
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    table = client_of(output_dir).load_table(run.info.experiment_id, "arms.json", [run.info.run_id])
    assert list(table["arm"]) == ["none", "dropout"]
    assert table["test_acc"][1] == pytest.approx(0.85)


def test_an_arms_run_holds_what_the_arm_found(begin: Begin, find: Find):
    tracker = begin()
    tracker.finish(make_summary(), [])
    run = find()["dropout"]
    assert run.data.params["chosen_rate.input.dropout"] == "0.1"
    assert run.data.metrics["dropsearch/test_acc"] == pytest.approx(0.85)
    assert run.data.metrics["dropsearch/test_loss"] == pytest.approx(0.3)
    assert run.data.metrics["dropsearch/val_loss_best"] == 0.5


def test_the_data_set_is_an_input_of_the_parent(begin: Begin, find: Find, output_dir: Path):
    tracker = begin()
    tracker.close()
    run = client_of(output_dir).get_run(find()["first"].info.run_id)
    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("digits", DATA["digest"])
    assert json.loads(given.dataset.profile) == {"sizes": DATA["sizes"], "classes": 10}
    assert "[-1, 1, 8, 8]" in json.loads(given.dataset.schema)["mlflow_tensorspec"]["features"]


def test_a_long_setting_is_cut_and_kept_whole_beside(begin: Begin, find: Find, output_dir: Path):
    text = "x" * 7000
    tracker = begin(comment=text)
    tracker.close()
    run = find()["first"]
    assert len(run.data.params["comment"]) == 6000
    kept = output_dir / "mlartifacts" / run.info.run_id / "artifacts" / "long_params" / "comment.txt"
    assert kept.read_text() == text


def test_a_file_that_is_not_there_is_a_problem_and_no_error(begin: Begin, find: Find, output_dir: Path):
    tracker = begin()
    tracker.finish(make_summary(), [output_dir / "nowhere.json"])
    assert len(tracker.problems) == 1
    assert "nowhere.json" in tracker.problems[0]
    assert find()["first"].info.status == "FINISHED"


def test_an_interrupted_study_is_killed_and_its_running_trial_leaves_no_trace(begin: Begin, find: Find):
    tracker = begin(flush_seconds=0.0)
    tracker.end(make_result(1))
    for metrics in make_curve():
        tracker.epoch(make_spec(2), metrics)
    tracker.close("KILLED")
    statuses = {name: run.info.status for name, run in find().items()}
    assert statuses == {"first": "KILLED", "dropout": "KILLED", "dropout/1": "FINISHED"}


def test_a_summary_of_what_was_done_until_an_interrupt_ends_killed(begin: Begin, find: Find):
    tracker = begin()
    tracker.finish(make_summary(complete=False), [])
    assert find()["first"].info.status == "KILLED"


def test_closing_after_the_finish_changes_nothing(begin: Begin, find: Find):
    tracker = begin()
    tracker.finish(make_summary(), [])
    tracker.close("FAILED")
    tracker.close("KILLED")
    assert find()["first"].info.status == "FINISHED"


def test_what_has_no_ended_run_is_missing(begin: Begin):
    tracker = begin()
    tracker.end(make_result(1))
    tracker.end(make_result(2, "PRUNED"))
    tracker.close()
    assert begin().missing(["dropout/1", "dropout/2", "dropout/3"]) == {"dropout/3"}


def test_another_studys_trials_do_not_count_whatever_its_name(begin: Begin):
    tracker = begin("first", study_id="1d")
    tracker.end(make_result(1))
    tracker.close()
    assert begin("first", study_id="2e").missing(["dropout/1"]) == {"dropout/1"}
    assert begin("renamed", study_id="1d").missing(["dropout/1"]) == set()


@pytest.mark.parametrize("study", ["it's", 'a "quoted" one', "50% of `it`", "häuser; --", 'it\'s a "name"'])
def test_a_study_may_have_a_strange_name(begin: Begin, study: str):
    tracker = begin(study)
    tracker.end(make_result(1))
    tracker.close()
    assert begin(study).missing(["dropout/1"]) == set()


def test_many_pages_of_trials_are_searched(begin: Begin, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dropsearch.tracking.mlflow.runs.PAGE", 2)
    tracker = begin()
    for number in range(5):
        tracker.end(make_result(number))
    assert tracker.missing(f"dropout/{number}" for number in range(6)) == {"dropout/5"}


def test_a_server_that_fails_in_between_loses_nothing(begin: Begin, find: Find, output_dir: Path):
    tracker = begin()
    tracker.end(make_result(1))
    assert tracker._writer.wait()
    with server_down(output_dir):
        tracker.end(make_result(2))
        assert tracker._writer.wait()
    tracker.end(make_result(3))
    tracker.finish(make_summary(), [])
    assert {"dropout/1", "dropout/2", "dropout/3"} <= set(find("attributes.status = 'FINISHED'"))
    assert len(tracker.problems) == 1
    assert "trial dropout/2" in tracker.problems[0]


def test_a_trial_that_was_half_written_is_completed(begin: Begin, find: Find, monkeypatch: pytest.MonkeyPatch):
    tracker = begin()
    end = tracker._worker._runs.end
    monkeypatch.setattr(tracker._worker._runs, "end", lambda *_: 1 / 0)
    tracker.end(make_result(1))
    assert tracker._writer.wait()
    monkeypatch.setattr(tracker._worker._runs, "end", end)
    tracker.close()
    run = find()["dropout/1"]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["dropsearch/epochs"] == 4


def test_what_a_dead_server_missed_is_written_by_the_next_run(begin: Begin, find: Find, output_dir: Path):
    tracker = begin()
    with server_down(output_dir):
        tracker.end(make_result(1))
        tracker.finish(make_summary(), [])
    assert "MLflow lacks 1 of the trials" in tracker.problems[-1]
    later = begin()
    assert later.missing(["dropout/1"]) == {"dropout/1"}
    later.end(make_result(1))
    later.close()
    assert begin().missing(["dropout/1"]) == set()


def test_an_unfinished_parent_of_this_process_is_closed_by_the_next_start(begin: Begin, output_dir: Path):
    first = begin()
    first.end(make_result(1))
    assert first._writer.wait()
    begin()
    assert client_of(output_dir).get_run(first.info["run_id"]).info.status == "KILLED"


def test_runs_of_another_host_are_unchanged(begin: Begin, output_dir: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patched:
        patched.setattr("dropsearch.tracking.mlflow.worker_process.this_process", lambda: "elsewhere:1:1")
        other = begin()
    begin()
    assert client_of(output_dir).get_run(other.info["run_id"]).info.status == "RUNNING"


def test_the_session_leaves_the_process_as_it_was(begin: Begin):
    import mlflow

    def state() -> tuple[Any, ...]:
        levels = [logging.getLogger(name).level for name in ("mlflow", "alembic", "urllib3.connectionpool")]
        return dict(os.environ), levels, mlflow.get_tracking_uri(), mlflow.active_run()

    before = state()
    tracker = begin()
    tracker.end(make_result())
    tracker.finish(make_summary(), [])
    assert state() == before


def test_a_first_run_creates_the_database_silently(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    output_dir = tmp_path / "a folder, 100% new"
    tracker = make_tracker("mlflow", uri=None, output_dir=output_dir)
    tracker.connect(EXPERIMENT)
    tracker.start(study="s", study_id="1d", config={}, tags={}, data=DATA)
    tracker.finish(make_summary(), [])
    assert (output_dir / "mlflow.db").exists()
    assert list((output_dir / "mlartifacts").glob("*/artifacts/arms.json"))
    assert capfd.readouterr() == ("", "")


def test_the_info_says_where_to_look(begin: Begin, find: Find, output_dir: Path):
    tracker = begin()
    parent = find()["first"].info
    assert tracker.info == {
        "tracking_uri": f"sqlite:///{output_dir / 'mlflow.db'}",
        "experiment": EXPERIMENT,
        "experiment_id": parent.experiment_id,
        "run_id": parent.run_id,
    }


def test_a_deleted_experiment_is_refused_with_the_command_that_restores_it(begin: Begin, output_dir: Path):
    tracker = begin()
    tracker.close()
    client_of(output_dir).delete_experiment(tracker.info["experiment_id"])
    with pytest.raises(InputError, match="mlflow experiments restore -x"):
        begin()


def test_a_scheme_that_mlflow_does_not_know_is_refused_in_one_line(tmp_path: Path):
    tracker = make_tracker("mlflow", uri="htp://host:5000", output_dir=tmp_path)
    with pytest.raises(InputError, match=r"got htp://host:5000 \(tracking\.uri\)") as caught:
        tracker.connect(EXPERIMENT)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_mlflow_is_refused(tmp_path: Path):
    import http.server
    import threading

    class Silent(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever).start()
        tracker = make_tracker("mlflow", uri=f"http://127.0.0.1:{server.server_port}", output_dir=tmp_path)
        with pytest.raises(InputError, match="MLflow must be able to open the experiment"):
            tracker.connect(EXPERIMENT)
        server.shutdown()


EVIDENCE = Evidence({"dropout": ArmEvidence((1, 2), {"gap_best": (0.25, 0.75), "shift_min": (math.nan, math.nan)})})


def test_what_was_measured_stands_in_the_arms(begin: Begin, find: Find):
    tracker = begin()
    tracker.end(make_result(3))
    tracker.finish(make_summary(evidence=EVIDENCE), [])
    runs = find()
    assert runs["dropout"].data.metrics["dropsearch/evidence/gap_best"] == 0.5
    assert "dropsearch/dropout/evidence/gap_best" not in runs["first"].data.metrics  # its charts are few
    assert not [name for run in runs.values() for name in run.data.metrics if "shift_min" in name]


def test_what_is_measured_later_is_added_to_the_last_run_that_ended(begin: Begin, find: Find, output_dir: Path):
    tracker = begin()
    tracker.end(make_result(3))
    tracker.finish(make_summary(), [])
    before = find()
    report = output_dir / "report.html"
    report.write_text("measured")
    again = begin(amends=True, task="evidence")
    assert again.info["run_id"] == before["first"].info.run_id
    again.finish(make_summary(evidence=EVIDENCE), [report])
    runs = find()
    assert set(runs) == set(before)
    assert runs["dropout"].data.metrics["dropsearch/evidence/gap_best"] == 0.5
    assert "dropsearch/dropout/evidence/gap_best" not in runs["first"].data.metrics  # its charts are few
    artifacts = client_of(output_dir).list_artifacts(runs["first"].info.run_id)
    assert "report.html" in [artifact.path for artifact in artifacts]
    for name, run in runs.items():
        was = before[name].info
        assert (run.info.status, run.info.start_time, run.info.end_time) == (was.status, was.start_time, was.end_time)
        assert run.data.params == before[name].data.params


def test_later_measures_get_their_own_run_if_there_is_none(begin: Begin, find: Find):
    tracker = begin(amends=True, task="evidence")
    tracker.finish(make_summary(evidence=EVIDENCE), [])
    runs = find()
    assert runs["first"].info.status == "FINISHED"
    assert runs["first"].data.params["task"] == "evidence"
    assert runs["dropout"].data.metrics["dropsearch/evidence/gap_best"] == 0.5


def test_a_database_that_fails_is_one_line(begin: Begin, output_dir: Path, capfd: pytest.CaptureFixture[str]):
    tracker = begin()
    with contextlib.closing(sqlite3.connect(output_dir / "mlflow.db")) as connection:
        connection.execute("DROP TABLE metrics")
    tracker.end(make_result(0))
    tracker.finish(make_summary(), [])
    assert "no such table: metrics; the study goes on without it" in tracker.problems[0]
    assert "Traceback" not in capfd.readouterr().err


def test_a_run_that_does_not_open_is_awaited_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Hanging:
        def call(self, name: str, *given: Any) -> Any:
            gate.wait()

        def close(self) -> None: ...

    gate = threading.Event()
    monkeypatch.setattr(mlflow_tracker, "PATIENCE", 0.01)
    tracker = MlflowTracker(resolve(None, None, tmp_path), tmp_path, worker=lambda _: Hanging())
    tracker.connect(EXPERIMENT)
    tracker.start(study="first", study_id="1d", config={}, tags={}, data=DATA)
    assert tracker.info == {}
    monkeypatch.setattr(mlflow_tracker, "PATIENCE", 10_000)
    assert tracker.info == {}
    gate.set()
    tracker.close()
