"""The runs of one study in one MLflow experiment: creating, writing, ending and searching them."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from dropsearch.core.printable import printable
from dropsearch.core.processes import is_dead
from dropsearch.tracking.mlflow.address import Address
from dropsearch.tracking.mlflow.payloads import PARAM_LENGTH, TAG_LENGTH, Point, cut, now

STUDY, STUDY_ID, KEY, ARM, KIND, OWNER = (
    f"dropsearch.{word}" for word in ("study", "study_id", "key", "arm", "kind", "owner")
)
STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
"""Optuna's states as MLflow's states, mapped as in MLflow's Optuna storage."""
PAGE = 1000


_TRAINING = {"mlflow.experimentKind": "custom_model_development"}
"""Tags that make MLflow's UI show the table of runs and charts instead of traces of language models."""


def open_experiment(client: MlflowClient, name: str, address: Address) -> str:
    """Return the id of the experiment with this name; create it if necessary."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return client.create_experiment(name, artifact_location=address.artifacts, tags=_TRAINING)
        except MlflowException:
            # Another process may have created it.
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage != "active":
        command = f"mlflow experiments restore -x {experiment.experiment_id}"
        raise address.refuse(f"MLflow's experiment {name!r} must not be deleted", f"`{command}` restores it")
    return experiment.experiment_id


class Runs:
    """All runs of one study. Every call names its run; MLflow's active run is not used.

    A study is identified by its id, since names on a shared server need not be unique. `owner` is the process that the
    runs belong to, as returned by `processes.this_process`.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, study: str, study_id: str, owner: str) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self._study, self._study_id = study, study_id
        self._owner = owner

    def create(
        self, name: str, kind: str, tags: Mapping[str, str], *, parent: str | None = None, start: int | None = None
    ) -> str:
        """Create a run and return its id; it is RUNNING until `end`."""
        known = {STUDY: self._study, STUDY_ID: self._study_id, KIND: kind, OWNER: self._owner}
        known |= _user()
        known |= {"mlflow.source.name": "python -m dropsearch", "mlflow.source.type": "LOCAL"}
        if parent is not None:
            known["mlflow.parentRunId"] = parent
        all_tags = {name: cut(printable(value), TAG_LENGTH) for name, value in {**known, **tags}.items()}
        run = self.client.create_run(self.experiment_id, start_time=start, tags=all_tags, run_name=printable(name))
        return run.info.run_id

    def write(
        self,
        run_id: str,
        points: Sequence[Point] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        stamps: Sequence[int] | None = None,
    ) -> None:
        """Write points, parameters and tags in one call; `stamps` are the times of the points, by default now.

        A parameter that is too long for MLflow is cut; the full value is in `long_params/NAME.txt`.
        """
        times = stamps if stamps is not None else [now()] * len(points)
        params = params or {}
        self.client.log_batch(
            run_id,
            metrics=[Metric(name, value, at, step) for (name, value, step), at in zip(points, times, strict=True)],
            params=[Param(name, cut(value, PARAM_LENGTH)) for name, value in params.items()],
            tags=[RunTag(name, cut(value, TAG_LENGTH)) for name, value in (tags or {}).items()],
            synchronous=True,
        )
        for name, value in params.items():
            if len(value) > PARAM_LENGTH:
                self.client.log_text(run_id, value, f"long_params/{name.replace('/', '.')}.txt")

    def add_data(self, run_id: str, data: Mapping[str, Any]) -> None:
        """Log the data set as an input of a run."""
        dataset = Dataset(
            name=str(data["name"]),
            digest=str(data["digest"])[:36],
            source_type="local",
            source=json.dumps({"uri": str(data["source"])}),
            schema=json.dumps({"mlflow_tensorspec": _tensors(data["input_shape"])}),
            profile=json.dumps({"sizes": dict(data["sizes"]), "classes": data["classes"]}, default=str),
        )
        context = InputTag("mlflow.data.context", "training")
        inputs = [DatasetInput(dataset, [context])]
        try:
            self.client.log_inputs(run_id, datasets=inputs)
        except MlflowException as error:
            # Another process wrote the same data set between MLflow's read and write; a retry finds it.
            if "UNIQUE" not in str(error).upper():
                raise
            self.client.log_inputs(run_id, datasets=inputs)

    def log_model(self, run_id: str, folder: Path, tags: Mapping[str, str]) -> None:
        """Log the MLflow model in a folder as an output of a run."""
        logged = self.client.create_logged_model(
            self.experiment_id, name="model", source_run_id=run_id, tags=dict(tags), model_type="classifier"
        )
        self.client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        description = Model.load(str(folder))
        description.model_id = description.model_uuid = logged.model_id
        description.run_id, description.artifact_path = run_id, logged.artifact_location
        description.save(str(folder / "MLmodel"))
        self.client.log_model_artifacts(logged.model_id, str(folder))
        self.client.finalize_logged_model(logged.model_id, "READY")

    def end(self, run_id: str, status: str, at: int | None = None) -> None:
        """Close a run as FINISHED, KILLED or FAILED."""
        self.client.set_terminated(run_id, status=status, end_time=at)

    def ended_keys(self) -> set[str]:
        """Return the keys of trials with an ended run; of several runs of a trial, delete all but the first.

        Several invocations may write the same untracked trials. They agree on the first run, so one run per trial
        remains.
        """
        runs = list(self._search(f"tags.`{KIND}` = 'trial' and attributes.status != 'RUNNING'"))
        kept: set[str] = set()
        for run in sorted(runs, key=lambda run: (run.info.end_time or 0, run.info.run_id)):
            if run.data.tags[KEY] in kept:
                self.client.delete_run(run.info.run_id)
            kept.add(run.data.tags[KEY])
        return kept

    def last_parent(self) -> str | None:
        """Return the parent run of the study's last finished invocation, or None."""
        parents = self._search(f"tags.`{KIND}` = 'parent' and attributes.status = 'FINISHED'")
        last = max(parents, key=lambda run: run.info.start_time, default=None)
        return last.info.run_id if last is not None else None

    def arms_under(self, parent: str) -> dict[str, str]:
        """Return the runs of arms under a parent run, by arm."""
        arms = self._search(f"tags.`{KIND}` = 'arm' and tags.`mlflow.parentRunId` = '{parent}'")
        return {run.data.tags[ARM]: run.info.run_id for run in arms}

    def sweep(self) -> None:
        """Close the runs that a dead process left open.

        Its unfinished trials are deleted, since they will be written again; its arms and parents become KILLED. Runs
        that the owner opened earlier also count as left open.
        """
        for run in list(self._search("attributes.status = 'RUNNING'")):
            owner = run.data.tags.get(OWNER, "")
            if owner != self._owner and not is_dead(owner):
                continue
            if run.data.tags.get(KIND) == "trial":
                self.client.delete_run(run.info.run_id)
            else:
                self.end(run.info.run_id, "KILLED")

    def _search(self, condition: str) -> Iterator[Run]:
        """Yield the study's undeleted runs that satisfy `condition`."""
        words = f"tags.`{STUDY_ID}` = '{self._study_id}' and {condition}"
        token: str | None = None
        while token is None or token:
            page = self.client.search_runs([self.experiment_id], words, max_results=PAGE, page_token=token)
            yield from page
            token = page.token or ""


def _user() -> dict[str, str]:
    try:
        return {"mlflow.user": getpass.getuser()}
    except (OSError, KeyError):  # a user in a container may have no name
        return {}


def _tensors(input_shape: Sequence[int]) -> dict[str, str]:
    """Describe inputs `[batch, *input_shape]` and targets `[batch]` in the format of MLflow's tensor data sets."""
    import numpy as np
    from mlflow.types import Schema, TensorSpec

    features = Schema([TensorSpec(np.dtype(np.float32), (-1, *input_shape))])
    targets = Schema([TensorSpec(np.dtype(np.int64), (-1,))])
    return {"features": features.to_json(), "targets": targets.to_json()}
