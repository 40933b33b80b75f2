"""The MLflow tracker: a parent run, one run per arm, and one run per trial."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from dropsearch.core.errors import InputError, first_cause
from dropsearch.core.printable import one_line
from dropsearch.core.records import EpochMetrics, Summary, TrialResult, TrialSpec
from dropsearch.tracking.mlflow.address import Address, check_reachable
from dropsearch.tracking.mlflow.background_writer import PATIENCE, BackgroundWriter
from dropsearch.tracking.mlflow.payloads import KEY_LENGTH, Curve, now
from dropsearch.tracking.mlflow.worker_process import WorkerConnection, worker_at
from dropsearch.tracking.tracker import Tracker

FLUSH_SECONDS = 20.0
"""Interval at which the curves of a running trial are written, in seconds."""


class MlflowTracker(Tracker):
    """Writes a study to MLflow, which runs in a separate process.

    A trial is written when it ends, in three calls. If it takes longer than `flush_seconds`, its curves are written
    while it runs.

    Importing MLflow and creating its tables takes three seconds. This happens in the background if the database is a
    new file in a writable folder. If it fails, the study continues without tracking, `problems` contains the reason,
    and the next run writes the missing trials.
    """

    def __init__(
        self,
        address: Address,
        output_dir: Path,
        flush_seconds: float = FLUSH_SECONDS,
        worker: Callable[[Address], WorkerConnection] = worker_at,
    ) -> None:
        super().__init__()
        self._address = address
        self._output_dir = output_dir.absolute()
        self._flush_seconds = flush_seconds
        self._make_recording = worker
        self._ids: dict[str, str] = {}
        self._is_started = False
        self._opened = threading.Event()
        """Set when the parent run is open, opening it has failed, or waiting has been abandoned."""
        self._curves: dict[str, Curve] = {}
        self._ended: set[str] = set()
        """Keys of trials with an ended run, including queued ones."""
        self._catches_up = False
        """Whether trials of other processes are written, which another invocation may also do."""
        self._writer: BackgroundWriter | None = None
        self._until_closed = contextlib.ExitStack()

    @property
    def location(self) -> Mapping[str, str]:
        """tracking_uri and experiment, available after `connect`."""
        return {"tracking_uri": self._address.shown, "experiment": self._experiment}

    @property
    def info(self) -> Mapping[str, str]:
        """tracking_uri, experiment, experiment_id and run_id of the parent run; waits until available."""
        if not self._opened.wait(PATIENCE):
            self._opened.set()  # once is enough
        return {**self.location, **self._ids} if "run_id" in self._ids else {}

    def connect(self, experiment: str) -> None:
        """Connect to MLflow and create the experiment if necessary; no run is opened yet.

        Raises:
            InputError: The URI is not reachable within a few seconds, or MLflow cannot use it.
        """
        check_reachable(self._address)
        experiment = self._experiment = one_line(experiment, KEY_LENGTH)
        self._nobody_waits = self._address.is_yet_to_be_made
        self._worker = self._make_recording(self._address)
        self._writer = BackgroundWriter(self._problems, self._address.hide)
        self._begin("the experiment", partial(self._note, "experiment_id", "connect", experiment))

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
        """Open the parent run of this invocation and close runs that dead processes left open.

        With `amends`, use the parent run of the study's last finished invocation, if there is one.
        """
        self._is_started = True
        self._begin("the study", partial(self._open, study, study_id, tags, amends))
        self._put("the configuration", "describe", config, data)

    def epoch(self, spec: TrialSpec, metrics: EpochMetrics) -> None:
        """Add one point of a running trial's curves; points are written every `flush_seconds`."""
        if due := self._curves.setdefault(spec.key, Curve()).with_point(metrics, self._flush_seconds):
            points, start = due
            self._put(f"trial {spec.key}", "write_points", spec, points, start)

    def end(self, result: TrialResult) -> None:
        """Queue a finished trial for writing and return immediately."""
        key = result.spec.key
        if key in self._ended:
            return
        self._ended.add(key)
        self._curves.pop(key, None)
        self._put(f"trial {key}", "write_trial", result, now(), again=True)

    def missing(self, keys: Iterable[str]) -> set[str]:
        """Return the given trial keys that have no ended run yet.

        The set is empty if the server does not answer; the next run of the study asks again.
        """
        unknown = set(keys) - self._ended
        if self._writer is None or not unknown:
            return set()
        found: list[set[str]] = []
        self._writer.put("the list of trials", lambda: found.append(self._worker.call("ended_keys")))
        self._writer.wait()
        if not found:
            return set()
        self._ended |= found[0]
        missing = unknown - self._ended
        self._catches_up = self._catches_up or bool(missing)
        return missing

    def log_model(self, model: Callable[[], Any], example: Any, tags: Mapping[str, str]) -> None:
        """Export and log the winner in the MLflow process, or export it here if it cannot be pickled."""
        if self._writer is None:
            return
        try:
            module = model()
            pickled = _pickled(module)
        except Exception as error:  # user modules may raise anything
            self._problems.append(f"The winner cannot be logged as an MLflow model: {first_cause(error)[:300]}")
            return
        if pickled is not None:
            self._writer.put("the winner", partial(self._log_model, pickled, example, tags))
            return
        from dropsearch.tracking.mlflow.export import exported  # imports mlflow.pytorch

        folder = Path(self._until_closed.enter_context(tempfile.TemporaryDirectory(prefix="dropsearch-model-")))
        if problem := exported(module, example, folder / "model"):
            self._problems.append(problem)
        else:
            self._put("the winner", "upload_model", folder / "model", tags)

    def finish(self, summary: Summary, artifacts: Sequence[Path]) -> None:
        """Write the results of the study and close all runs as FINISHED, or KILLED after an interruption."""
        if self._writer is None:
            return
        self._writer.retry()
        if self._catches_up:
            self._put("the list of trials", "ended_keys")  # also deletes duplicates by other invocations
        for name, outcome in summary.arms.items():
            self._put(f"arm {name}", "write_arm", name, outcome)
        self._put("the summary", "write_summary", summary)
        if summary.evidence is not None:
            self._put("what was measured", "write_evidence", summary.evidence)
        for path in artifacts:
            self._put(str(path), "write_artifact", path.absolute(), self._output_dir)
        self._close("FINISHED" if summary.complete else "KILLED")

    def close(self, status: Literal["KILLED", "FAILED"] = "FAILED") -> None:
        """Close every open run with a status; does nothing after `finish`."""
        if self._writer is not None:
            self._writer.retry()
            if self._catches_up:
                self._put("the list of trials", "ended_keys")
            self._close(status, hurry=status == "KILLED")

    def _begin(self, label: str, job: Callable[[], object]) -> None:
        """Run a step that all writing depends on, now or in the background."""
        if self._writer is None:
            return
        if self._nobody_waits:
            self._writer.put(label, job)
            return
        try:
            with self._refusing():
                job()
        except BaseException:
            self._writer.close()
            self._writer = None
            self._worker.close()
            raise

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # includes errors of drivers and of the HTTP library
            raise self._address.refuse("MLflow must be able to open the experiment", first_cause(error)) from error

    def _open(self, *given: Any) -> None:
        try:
            self._note("run_id", "open", *given)
        finally:
            self._opened.set()

    def _note(self, key: str, name: str, *given: Any) -> None:
        self._ids[key] = self._worker.call(name, *given)

    def _put(self, label: str, name: str, *given: Any, again: bool = False) -> None:
        if self._writer is not None:
            self._writer.put(label, partial(self._worker.call, name, *given), again=again)

    def _log_model(self, *given: Any) -> None:
        if problem := self._worker.call("log_model", *given):
            self._problems.append(problem)

    def _close(self, status: str, hurry: bool = False) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        self._write_end(writer, status)
        try:
            lost = writer.close(hurry)
        except KeyboardInterrupt:  # the next run writes the queue; only the end is written now
            writer.forget()
            self._write_end(writer, "KILLED")
            writer.close(hurry=True)
            raise
        finally:
            self._worker.close()
            self._until_closed.close()
        if lost:
            self._problems.append(
                f"MLflow lacks {len(lost)} of the trials that ended, first {lost[0]}: "
                "the next run of this study writes them"
            )

    def _write_end(self, writer: BackgroundWriter, status: str) -> None:
        if self._is_started:
            writer.put("the end of the runs", partial(self._worker.call, "end", status))


def _pickled(module: Any) -> bytes | None:
    """Return a pickled torch module, or None if it contains something that belongs to this process, such as a lock."""
    from cloudpickle import dumps  # supports functions inside functions and classes of notebooks

    try:
        return dumps(module)
    except Exception:  # objects raise various errors
        return None
