"""Studies and MLflow share one folder, whatever characters its name has, and leave no other behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from dropsearch._compat.database_urls import sqlite_file
from dropsearch.core.printable import printable
from dropsearch.tracking.mlflow.address import resolve
from dropsearch.tracking.mlflow.mlflow_tracker import MlflowTracker
from dropsearch.tracking.mlflow.worker_process import worker_here
from tests.experiment.conftest import LIGHT, Cli
from tests.tracking.tracked_studies import DATA, EXPERIMENT, make_result, make_summary


@pytest.mark.parametrize("name", ["a b%20c%41d", "a?b#c", "{a}"])
def test_mlflow_writes_into_the_folder_and_no_other(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    tracker = MlflowTracker(resolve(None, None, folder), folder, worker=worker_here)
    tracker.connect(EXPERIMENT)
    tracker.start(study="first", study_id="1d", config={}, tags={}, data=DATA)
    tracker.end(make_result(3))
    (folder / "report.md").write_text("words")
    tracker.finish(make_summary(), [folder / "report.md"])
    assert tracker.problems == []
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert {path.name for path in folder.iterdir()} == {"mlflow.db", "mlartifacts", "report.md"}
    assert list((folder / "mlartifacts").rglob("report.md"))


@pytest.mark.parametrize(
    ("storage", "file"),
    [
        ("sqlite:///a b.db", "a b.db"),
        ("sqlite:///a%20c.db", "a c.db"),
        ("sqlite:///a%3Fb.db", "a?b.db"),
        ("sqlite:///{a}.db", "{a}.db"),
    ],
)
def test_a_study_is_in_the_file_that_its_address_names(cli: Cli, storage: str, file: str) -> None:
    once = ("study.n_trials=1", "confirm.top_k=1", "confirm.seeds=1")
    ended = cli(*LIGHT, *once, "arms=[none]", "output_dir=out", f"study.storage='{storage}'")
    assert ended.status == 0, ended.err
    assert [name for name in ended.left if not name.startswith("out")] == [file]
    assert sqlite_file(storage) == Path(file)


@pytest.mark.parametrize("key", ["study.storage", "tracking.uri"])
def test_a_question_mark_in_an_address_is_refused(cli: Cli, key: str) -> None:
    ended = cli(f"{key}='sqlite:///a?b.db'")
    assert (ended.status, ended.left) == (2, [])
    assert "a question mark in a path is written %3F" in ended.err


@pytest.mark.parametrize(
    "uri", ["databricks", "databricks://profile\nx", "http://127.0.0.1:9/\x1b[31m\u202e", "x" * 5000]
)
def test_a_bad_address_of_mlflow_is_one_short_line(cli: Cli, uri: str) -> None:
    ended = cli(f'tracking.uri="{uri}"')
    assert (ended.status, ended.left) == (2, [])
    assert ended.err.count("\n") == 1
    assert len(ended.err) < 1100
    assert printable(ended.err, keep="\n") == ended.err
