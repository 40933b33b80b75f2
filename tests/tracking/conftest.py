"""An MLflow database, trackers that write to it, and a look at what they wrote."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dropsearch.tracking.mlflow.address import make_database, resolve
from tests.tracking.tracked_studies import DATA, EXPERIMENT


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory, mlflow_tables: None) -> Path:
    """MLflow's tables and nothing in them."""
    folder = tmp_path_factory.mktemp("empty")
    make_database(resolve(None, None, folder))
    return folder / "mlflow.db"


@pytest.fixture
def output_dir(tmp_path: Path, empty_database: Path) -> Path:
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def begin(output_dir: Path) -> Iterator[Callable[..., Any]]:
    """Return a function that starts a tracker in `output_dir`; all are closed when the test ends."""
    from dropsearch.tracking.mlflow.mlflow_tracker import MlflowTracker
    from dropsearch.tracking.mlflow.worker_process import worker_here

    trackers = []

    def start(
        study: str = "first", study_id: str = "1d", flush_seconds: float = 5.0, amends: bool = False, **config: Any
    ) -> MlflowTracker:
        tracker = MlflowTracker(resolve(None, None, output_dir), output_dir, flush_seconds, worker_here)
        tags = {"mlflow.source.git.commit": "0" * 40}
        tracker.connect(EXPERIMENT)
        tracker.start(study=study, study_id=study_id, config=config, tags=tags, data=DATA, amends=amends)
        trackers.append(tracker)
        return tracker

    yield start
    for tracker in trackers:
        tracker.close()


@pytest.fixture
def find(output_dir: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that reads the runs of all studies, by name, with MLflow's own client."""
    from mlflow import MlflowClient
    from mlflow.entities import ViewType

    def runs(condition: str = "", deleted: bool = False) -> dict[str, Any]:
        uri = f"sqlite:///{output_dir / 'mlflow.db'}"
        client = MlflowClient(uri, uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        assert experiment is not None
        view = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
        found = client.search_runs([experiment.experiment_id], condition, run_view_type=view)
        assert len({run.info.run_name for run in found}) == len(found), "a run is there twice"
        return {run.info.run_name: run for run in found}

    return runs
