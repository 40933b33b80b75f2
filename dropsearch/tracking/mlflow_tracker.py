"""The tracker that writes to MLflow: a parent run, a run an arm, a run a trial."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from mlflow import MlflowClient

from dropsearch.errors import InputError, first_cause
from dropsearch.records import EpochMetrics, Summary, TrialResult, TrialSpec
from dropsearch.tracking.address import Address, knock
from dropsearch.tracking.database import make_database
from dropsearch.tracking.runs import Runs, now, open_experiment
from dropsearch.tracking.session import HASTE, SETTINGS, quiet, settings
from dropsearch.tracking.tree import RunTree
from dropsearch.tracking.writer import Writer

FLUSH_SECONDS = 20.0
"""For how long the curves of a running trial may be unseen."""


@dataclass
class Curve:
    """The curve of a running trial, as far as it is not handed to the writer yet."""

    since: float = field(default_factory=time.monotonic)
    flushed: float = field(default_factory=time.monotonic)
    epochs: int = 0
    waiting: list[tuple[EpochMetrics, int]] = field(default_factory=list)
    """Points with the times at which they came, in milliseconds."""


class MlflowTracker:
    """Writes a study to MLflow from a background thread, through a client with explicit run ids only.

    A trial is written when it ends, in three calls. The curves of a trial that takes longer than
    `flush_seconds` are written while it runs.
    """

    def __init__(self, address: Address, output_dir: Path, flush_seconds: float = FLUSH_SECONDS) -> None:
        self.problems: list[str] = []
        self.info: dict[str, str] = {}
        self._address = address
        self._output_dir = output_dir.absolute()
        self._flush_seconds = flush_seconds
        self._session = contextlib.ExitStack()
        self._curves: dict[str, Curve] = {}
        self._ended: set[str] = set()
        self._writer: Writer | None = None

    @property
    def place(self) -> Mapping[str, str]:
        """tracking_uri and experiment."""
        return {key: self.info[key] for key in ("tracking_uri", "experiment")}

    def connect(self, experiment: str) -> None:
        """Reach MLflow, and make the experiment where there is none; no run is opened yet.

        Raises:
            InputError: nothing answers at the URI within a few seconds, or MLflow cannot use it.
        """
        knock(self._address)
        with quiet(), settings(HASTE), self._refusing():
            make_database(self._address)
            self._client = MlflowClient(tracking_uri=self._address.uri, registry_uri=self._address.uri)
            experiment_id = open_experiment(self._client, experiment, self._address)
        self.info |= {"tracking_uri": self._address.shown, "experiment": experiment, "experiment_id": experiment_id}

    def start(
        self,
        *,
        study: str,
        study_id: str,
        config: Mapping[str, Any],
        tags: Mapping[str, str],
        data: Mapping[str, Any],
        amends: bool = False,
    ) -> None:
        """Open the parent run of this invocation and clear away what a dead process left open.

        With `amends`, take the parent run of the study's last invocation that came to its end, where there is one.

        Raises:
            InputError: MLflow cannot be used.
        """
        with contextlib.ExitStack() as session:
            session.enter_context(quiet())
            with settings(HASTE), self._refusing():
                self._open(study, study_id, tags, amends)
            session.enter_context(settings(SETTINGS))
            self._session = session.pop_all()
        self._writer = Writer(self.problems, self._address.hide)
        if not self._tree.is_ended:
            self._writer.put("the configuration", partial(self._tree.describe, config, data))

    def epoch(self, spec: TrialSpec, metrics: EpochMetrics) -> None:
        """Note one point of a running trial's curves; it is written when some seconds' worth has come."""
        curve = self._curves.setdefault(spec.key, Curve())
        curve.waiting.append((metrics, now()))
        curve.epochs += 1
        at = time.monotonic()
        if at - curve.flushed < self._flush_seconds or curve.epochs < 2:
            return
        # The first point came when one epoch was over; the pace since then says how long that epoch took.
        lasted = (at - curve.since) * curve.epochs / (curve.epochs - 1)
        points, curve.waiting, curve.flushed = curve.waiting, [], at
        self._put(f"trial {spec.key}", partial(self._tree.write_points, spec, points, now() - int(1000 * lasted)))

    def end(self, result: TrialResult) -> None:
        """Write a trial that ended, whole; returns at once."""
        key = result.spec.key
        if key in self._ended:
            return
        self._ended.add(key)
        self._curves.pop(key, None)
        self._put(f"trial {key}", partial(self._tree.write_trial, result, now()), again=True)

    def missing(self, keys: Iterable[str]) -> set[str]:
        """Return those of the `TrialSpec.key` of this study that have no ended run yet.

        Of a server that does not answer nothing is missing: the next run of the study asks again.
        """
        if self._writer is None:
            return set()
        found: list[set[str]] = []
        self._put("the list of trials", lambda: found.append(self._runs.ended_keys()))
        self._writer.wait()
        return set(keys) - found[0] - self._ended if found else set()

    def finish(
        self,
        summary: Summary,
        artifacts: Sequence[Path],
        model: Callable[[], Any] | None,
        example: Any | None,
    ) -> None:
        """Write what the study found, and close every run: FINISHED, or KILLED if it was interrupted."""
        if self._writer is None:
            return
        self._writer.retry()
        if not self._tree.is_ended:
            for name, outcome in summary.arms.items():
                self._put(f"arm {name}", partial(self._tree.write_arm, name, outcome))
            self._put("the summary", partial(self._tree.write_summary, summary))
        if summary.evidence is not None:
            self._put("what was measured", partial(self._tree.write_evidence, summary.evidence))
        for path in artifacts:
            self._put(str(path), partial(self._tree.write_artifact, path.absolute(), self._output_dir))
        with tempfile.TemporaryDirectory(prefix="dropsearch-model-") as folder:
            if model is not None and example is not None:
                self._put_model(model, example, Path(folder) / "model", summary)
            self._close("FINISHED" if summary.complete else "KILLED")

    def close(self, status: Literal["KILLED", "FAILED"] = "FAILED") -> None:
        """Close every open run with that status; does nothing after `finish`."""
        if self._writer is not None:
            self._writer.retry()
            self._close(status)

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # MLflow lets through what its drivers and its HTTP library raise
            raise self._address.refuse("MLflow must be able to open the experiment", first_cause(error)) from error

    def _open(self, study: str, study_id: str, tags: Mapping[str, str], amends: bool) -> None:
        self._runs = Runs(self._client, self.info["experiment_id"], study, study_id)
        self._runs.sweep()
        ended = self._runs.last_parent() if amends else None
        self.info["run_id"] = ended or self._runs.create(study, "parent", tags)
        self._tree = RunTree(self._runs, self.info["run_id"], is_ended=ended is not None)

    def _put(self, label: str, job: Callable[[], object], *, again: bool = False) -> None:
        if self._writer is not None:
            self._writer.put(label, job, again=again)

    def _put_model(self, model: Callable[[], Any], example: Any, folder: Path, summary: Summary) -> None:
        """Export the winner here, for that is a second of torch; the writer sends it."""
        from dropsearch.tracking.model import save, upload  # imports torch and mlflow.pytorch

        try:
            description = save(model(), example, folder)
        except Exception as error:  # torch.export says no in many ways; the checkpoint is there all the same
            self.problems.append(f"The winner cannot be logged as an MLflow model: {first_cause(error)[:300]}")
            return
        tags = {"dropsearch.study": summary.study, "dropsearch.model": summary.model}
        self._put("the winner", partial(upload, self._runs, self.info["run_id"], folder, description, tags))

    def _close(self, status: str) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        writer.put("the end of the runs", partial(self._tree.end, status))
        if lost := writer.close():
            self.problems.append(
                f"MLflow lacks {len(lost)} of the trials that ended, first {lost[0]}: "
                "the next run of this study writes them"
            )
        self._session.close()
