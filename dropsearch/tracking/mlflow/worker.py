"""All calls of MLflow for one study, by name, so that they can run in another process: the tree of its runs."""

from __future__ import annotations

import contextlib
import json
import pickle
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient

from dropsearch.core.records import ArmOutcome, EpochMetrics, Evidence, Summary, TrialResult, TrialSpec
from dropsearch.tracking.metrics import OWN
from dropsearch.tracking.mlflow import payloads
from dropsearch.tracking.mlflow.address import Address, make_database
from dropsearch.tracking.mlflow.runs import ARM, KEY, STATUS, Runs, open_experiment
from dropsearch.tracking.mlflow.session import HASTE, SETTINGS, quiet, settings

TABLE = "arms.json"


@dataclass
class OpenTrial:
    """The run of an unfinished trial."""

    run_id: str
    start: int
    """Start time in milliseconds."""
    written: set[int] = field(default_factory=set)
    """Epochs whose points are written."""


class RunTree:
    """The parent run of one invocation and its child runs.

    A run is opened at the first write: that of an arm with its first trial, that of a confirmation with its first
    retraining. Each method may be called again after a failure.
    """

    def __init__(self, runs: Runs, parent: str, *, is_ended: bool = False) -> None:
        self._runs = runs
        self.parent = parent
        self.is_ended = is_ended
        """Whether the parent has ended and is only extended: existing values are kept and no run is closed."""
        self._arms: dict[str, str] = runs.arms_under(parent) if is_ended else {}
        self._parts: dict[tuple[str, str], str] = {}
        """Runs of an arm that group retrainings of one purpose, or a repetition of its search."""
        self._trials: dict[str, OpenTrial] = {}

    def describe(self, config: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        """Write configuration and data to the parent before the first trial."""
        if self.is_ended:
            return
        self._runs.write(self.parent, params=payloads.flatten(config))
        self._runs.client.log_dict(self.parent, dict(config), "config.yaml")
        self._runs.add_data(self.parent, data)

    def write_points(self, spec: TrialSpec, points: Sequence[tuple[EpochMetrics, int]], start: int) -> None:
        """Write a part of a running trial's curve; each point has its time in milliseconds."""
        trial = self._trial(spec, start)
        timed = [(point, at) for metrics, at in points for point in payloads.points_of(metrics)]
        self._runs.write(trial.run_id, [point for point, _ in timed], stamps=[at for _, at in timed])
        trial.written |= {metrics.epoch for metrics, _ in points}

    def write_trial(self, result: TrialResult, at: int) -> None:
        """Write everything of a finished trial that is not written yet; `at` is its end time.

        The run's duration is that of the trial, and its points are spread evenly over it.
        """
        lasted = int(1000 * result.seconds)
        state = payloads.state_of(result)
        # Values passed when the run is opened need no further call, which takes milliseconds.
        tags = state if result.spec.key in self._trials else {}
        trial = self._trial(result.spec, at - lasted, state)
        points, stamps = payloads.totals_of(result), []
        stamps += [trial.start + lasted] * len(points)
        for i, metrics in enumerate(result.curve, start=1):
            if metrics.epoch not in trial.written:
                added = payloads.points_of(metrics)
                points += added
                stamps += [trial.start + lasted * i // len(result.curve)] * len(added)
        self._runs.write(trial.run_id, points, payloads.params_of(result.spec), tags, stamps)
        self._runs.end(trial.run_id, STATUS[result.state], trial.start + lasted)
        del self._trials[result.spec.key]

    def write_arm(self, name: str, outcome: ArmOutcome) -> None:
        """Write the results of an arm to its run."""
        if self.is_ended:
            return
        points = [(payloads.key(f"{OWN}/{metric}"), value, 0) for metric, value in payloads.scores_of(outcome).items()]
        self._runs.write(self._arm(name), points, payloads.chosen_params_of(outcome))

    def write_summary(self, summary: Summary) -> None:
        """Write the results of all arms to the parent run."""
        if self.is_ended:
            return
        points: payloads.Points = [(f"{OWN}/seconds", summary.seconds, 0)]
        params: dict[str, str] = {}
        for arm, outcome in summary.arms.items():
            points += payloads.answer_of(arm, outcome)
            params |= {payloads.key(arm, name): text for name, text in payloads.chosen_params_of(outcome).items()}
        tags = {payloads.key("versions", name): version for name, version in summary.versions.items()}
        tags["mlflow.note.content"] = payloads.note_of(summary)
        tags["mlflow.loggedArtifacts"] = json.dumps([{"path": TABLE, "type": "table"}])
        self._runs.client.log_dict(self.parent, _split(payloads.table_of(summary)), TABLE)
        self._runs.write(self.parent, points, params, tags)

    def write_evidence(self, evidence: Evidence) -> None:
        """Write the measures of the winners to the runs of arms; to the parent run if an arm's run does not exist."""
        points: payloads.Points = [(f"{OWN}/evidence_seconds", evidence.seconds, 0)]
        for arm, found in evidence.arms.items():
            above = f"{OWN}/evidence" if arm in self._arms else f"{OWN}/{arm}/evidence"
            means = payloads.measures_of(found).items()
            measured = [(payloads.key(f"{above}/{name}"), value, 0) for name, value in means]
            if arm in self._arms:
                self._runs.write(self._arms[arm], measured)
            else:
                points += measured
        self._runs.write(self.parent, points)

    def write_artifact(self, path: Path, output_dir: Path) -> None:
        """Log a file or a folder to the parent run under its path relative to `output_dir`."""
        inside = path.is_relative_to(output_dir)
        place = path.relative_to(output_dir).parent.as_posix() if inside else "."
        if place == "." and path.suffix == ".png":
            place = "figures"
        if path.is_dir():
            self._runs.client.log_artifacts(self.parent, str(path), (Path(place) / path.name).as_posix())
        else:
            self._runs.client.log_artifact(self.parent, str(path), None if place == "." else place)

    def end(self, status: str) -> None:
        """Close arms, confirmations and parent; runs of unfinished trials are deleted, as after a crash."""
        for trial in self._trials.values():
            self._runs.client.delete_run(trial.run_id)
        self._trials.clear()
        if self.is_ended:
            return
        for run_id in (*self._parts.values(), *self._arms.values(), self.parent):
            self._runs.end(run_id, status)

    def _arm(self, arm: str) -> str:
        if arm not in self._arms:
            self._arms[arm] = self._runs.create(arm, "arm", {ARM: arm}, parent=self.parent)
        return self._arms[arm]

    def _above(self, spec: TrialSpec) -> str:
        """Return the parent of a trial's run: that of its arm, or of the arm's retrainings or repetition."""
        arm = self._arm(spec.arm)
        if spec.phase == "search" and spec.repeat == 1:
            return arm
        kind = "repeat" if spec.phase == "search" else spec.phase
        part = f"repeat {spec.repeat}" if kind == "repeat" else kind
        if (spec.arm, part) not in self._parts:
            self._parts[spec.arm, part] = self._runs.create(f"{spec.arm} {part}", kind, {ARM: spec.arm}, parent=arm)
        return self._parts[spec.arm, part]

    def _trial(self, spec: TrialSpec, start: int, state: Mapping[str, str] | None = None) -> OpenTrial:
        if spec.key not in self._trials:
            tags = {ARM: spec.arm, KEY: spec.key, "dropsearch.phase": spec.phase, **(state or {})}
            run_id = self._runs.create(spec.key, "trial", tags, parent=self._above(spec), start=start)
            self._trials[spec.key] = OpenTrial(run_id, start)
        return self._trials[spec.key]


def _split(table: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Return a table in the format of `MlflowClient.log_table`, which would need pandas and an extra read."""
    rows = zip(*table.values(), strict=True)
    return {"columns": list(table), "data": [list(row) for row in rows]}


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
