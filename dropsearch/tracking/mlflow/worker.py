"""All calls of MLflow for one study, by name, so that they can run in another process."""

from __future__ import annotations

import contextlib
import pickle
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from dropsearch.tracking.mlflow.address import Address, make_database
from dropsearch.tracking.mlflow.run_tree import RunTree
from dropsearch.tracking.mlflow.runs import Runs, open_experiment
from dropsearch.tracking.mlflow.session import HASTE, SETTINGS, quiet, settings


class MlflowWorker:
    """Writes the runs of one study: `connect`, then `open`, then the methods of `RunTree`."""

    def __init__(self, address: Address, owner: str) -> None:
        self._address, self._owner = address, owner
        self._session = contextlib.ExitStack()

    def call(self, name: str, *given: Any) -> Any:
        """Call a method of this class or of the `RunTree`."""
        method = getattr(self, name, None) or getattr(self._tree, name)
        return method(*given)

    def connect(self, experiment: str) -> str:
        """Return the id of the experiment with this name; create it if necessary."""
        self._session.enter_context(quiet())
        with settings(HASTE):
            make_database(self._address)
            self._client = MlflowClient(tracking_uri=self._address.uri, registry_uri=self._address.uri)
            self._experiment_id = open_experiment(self._client, experiment, self._address)
        return self._experiment_id

    def open(self, study: str, study_id: str, tags: Mapping[str, str], amends: bool) -> str:
        """Close runs of dead processes, open the parent run and return its id; see `Tracker.start`."""
        with settings(HASTE):
            runs = Runs(self._client, self._experiment_id, study, study_id, self._owner)
            runs.sweep()
            ended = runs.last_parent() if amends else None
            parent = ended or runs.create(study, "parent", tags)
        self._session.enter_context(settings(SETTINGS))
        self._runs, self._tree = runs, RunTree(runs, parent, is_ended=ended is not None)
        return parent

    def ended_keys(self) -> set[str]:
        """Return the keys of the study's trials with an ended run."""
        return self._runs.ended_keys()

    def log_model(self, module: bytes, example: Any, tags: Mapping[str, str]) -> str:
        """Log a pickled module as the winner; return the reason of a failure, or an empty string."""
        from dropsearch.tracking.mlflow.export import exported  # imports torch and mlflow.pytorch

        with tempfile.TemporaryDirectory(prefix="dropsearch-model-") as folder:
            problem = exported(pickle.loads(module), example, Path(folder) / "model")
            if not problem:
                self.upload_model(Path(folder) / "model", tags)
        return problem

    def upload_model(self, folder: Path, tags: Mapping[str, str]) -> None:
        """Log an exported model as the winner."""
        self._runs.log_model(self._tree.parent, folder, tags)

    def close(self) -> None:
        """Restore the settings of MLflow and of the process."""
        self._session.close()
