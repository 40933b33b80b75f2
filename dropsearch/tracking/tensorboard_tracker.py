"""The tracker that writes TensorBoard's event files: a run for each trial, and one for the study."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from dropsearch.core.errors import first_cause
from dropsearch.core.records import EpochMetrics, Summary, TrialResult, TrialSpec
from dropsearch.tracking.metrics import EndedTrials, flat, of_epoch, of_summary, of_trial, params_of

FOLDER = "tensorboard"
LIVE_SECONDS = 20.0
"""A trial that takes longer is written while it trains; one that is shorter when it ends."""


class TensorBoardTracker:
    """Writes event files below `output_dir/tensorboard`.

    Args:
        output_dir: The output directory of the run.
        clock: Seconds that rise.
    """

    def __init__(self, output_dir: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = output_dir.absolute() / FOLDER
        self.problems: list[str] = []
        self._clock = clock
        self._began: dict[str, float] = {}
        self._waiting: dict[str, list[EpochMetrics]] = {}
        self._open: dict[str, Any] = {}
        """Writers of trials that train, by key."""
        self._ended: EndedTrials | None = None

    @property
    def location(self) -> Mapping[str, str]:
        """The folder that TensorBoard is given."""
        return {"logdir": str(self.folder)}

    @property
    def info(self) -> Mapping[str, str]:
        """The same."""
        return self.location

    def connect(self, experiment: str) -> None:
        """Do nothing: files are made when they are written."""

    def start(self, *, study: str, study_id: str, config: Mapping[str, Any], **_: Any) -> None:
        """Note which study it is, and write its configuration."""
        self._ended = EndedTrials(self.folder / "ended.tsv", study_id)
        self._safely(lambda: self._write_config(study, config))

    def _write_config(self, study: str, config: Mapping[str, Any]) -> None:
        with _writer(self.folder / "study") as writer:
            lines = [f"    {key}: {value}" for key, value in flat(config).items()]
            writer.add_text("dropsearch/study", study)
            writer.add_text("dropsearch/config", "\n".join(lines))

    def epoch(self, spec: TrialSpec, metrics: EpochMetrics) -> None:
        """Note one point of a running trial's curves; write it where the trial takes long."""
        key, now = spec.key, self._clock()
        self._waiting.setdefault(key, []).append(metrics)
        if now - self._began.setdefault(key, now) >= LIVE_SECONDS:
            self._safely(lambda: self._write_points(key))

    def end(self, result: TrialResult) -> None:
        """Write a trial that ended, whole."""
        self._safely(lambda: self._write_trial(result))

    def missing(self, keys: Iterable[str]) -> set[str]:
        """Return those of the trials that are not written yet."""
        return set(keys) - (self._ended.keys() if self._ended else set())

    def log_model(self, model: Callable[[], Any], example: Any, tags: Mapping[str, str]) -> None:
        """Do nothing: TensorBoard keeps no models."""

    def finish(self, summary: Summary, artifacts: Sequence[Path]) -> None:
        """Write the numbers of the arms, and the figures."""
        self._safely(lambda: self._write_summary(summary, artifacts))
        self.close()

    def close(self, status: Literal["KILLED", "FAILED"] = "FAILED") -> None:
        """Close every file."""
        for writer in self._open.values():
            self._safely(writer.close)
        self._open.clear()

    def _write_points(self, key: str) -> Any:
        writer = self._open.get(key)
        if writer is None:
            writer = self._open[key] = _writer(self.folder / key)
        for metrics in self._waiting.pop(key, ()):
            for name, value in of_epoch(metrics).items():
                writer.add_scalar(name, value, metrics.epoch)
        writer.flush()
        return writer

    def _write_trial(self, result: TrialResult) -> None:
        key = result.spec.key
        self._began.pop(key, None)
        if key not in self._open:
            self._waiting[key] = list(result.curve)
            # What a process that died left of it would stand beside it.
            shutil.rmtree(self.folder / key, ignore_errors=True)
        writer = self._write_points(key)
        del self._open[key]
        totals = of_trial(result)
        for part in _hyperparameters({**params_of(result.spec), "state": result.state}, totals):
            writer.file_writer.add_summary(part)
        for name, value in totals.items():
            writer.add_scalar(name, value, 0)
        writer.close()
        if self._ended is not None:
            self._ended.add(key)

    def _write_summary(self, summary: Summary, artifacts: Sequence[Path]) -> None:
        with _writer(self.folder / "study") as writer:
            for name, value in of_summary(summary).items():
                writer.add_scalar(name, value, 0)
            for path in artifacts:
                if path.suffix == ".md":
                    writer.add_text("dropsearch/report", path.read_text(encoding="utf-8"))

    def _safely(self, write: Callable[[], object]) -> None:
        """Write; what goes wrong becomes one problem, and the training goes on."""
        try:
            write()
        except Exception as error:
            line = f"TensorBoard's files in {self.folder} lack something: {first_cause(error)[:200]}"
            if line not in self.problems:
                self.problems.append(line)


def _writer(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter  # imports tensorboard

    return SummaryWriter(str(folder))


def _hyperparameters(params: Mapping[str, Any], metrics: Mapping[str, float]) -> tuple[Any, Any, Any]:
    """Return what TensorBoard's table of hyperparameters is made of."""
    from torch.utils.tensorboard.summary import hparams

    plain = {key: value if isinstance(value, bool | int | float) else str(value) for key, value in params.items()}
    return hparams(plain, dict(metrics))
