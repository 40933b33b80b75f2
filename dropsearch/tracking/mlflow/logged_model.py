"""Upload of an exported model as an output of an MLflow run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mlflow.entities import LoggedModelOutput
from mlflow.models import Model

from dropsearch.tracking.mlflow.runs import Runs

NAME = "model"


def upload(runs: Runs, run_id: str, folder: Path, tags: Mapping[str, str]) -> str:
    """Log the model in `folder` as an output of the run; return its id."""
    client = runs.client
    logged = client.create_logged_model(
        runs.experiment_id, name=NAME, source_run_id=run_id, tags=dict(tags), model_type="classifier"
    )
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
    description = Model.load(str(folder))
    description.model_id = description.model_uuid = logged.model_id
    description.run_id, description.artifact_path = run_id, logged.artifact_location
    description.save(str(folder / "MLmodel"))
    client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    return logged.model_id
