"""The TensorBoard tracker: event files with one run per trial and one for the study."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from dropsearch.core.records import EpochMetrics, Summary, TrialResult, TrialSpec
from dropsearch.tracking.metrics import EndedTrials, flat, of_epoch, of_summary, of_trial, params_of
from dropsearch.tracking.tracker import Tracker

FOLDER = "tensorboard"
LIVE_SECONDS = 20.0
"""Seconds after which a trial is written while it trains; shorter ones are written at the end."""


class TensorBoardTracker(Tracker):
    """Writes event files below `output_dir/tensorboard`."""

    def __init__(self, output_dir: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder = output_dir.absolute() / FOLDER
        super().__init__(f"TensorBoard's files in {self.folder} are incomplete")
        self._clock = clock
        self._began: dict[str, float] = {}
        self._waiting: dict[str, list[EpochMetrics]] = {}
        self._open: dict[str, Any] = {}
        """Writers of running trials by key."""
        self._ended: EndedTrials | None = None

    @property
    def location(self) -> Mapping[str, str]:
        """The log folder of TensorBoard."""
        return {"logdir": str(self.folder)}

    def start(self, *, study: str, study_id: str, config: Mapping[str, Any], **_: Any) -> None:
        """Set the study and write its configuration, the first file."""
        self._ended = EndedTrials(self.folder / "ended.tsv", study_id)
        self._safely(lambda: self._write_config(study, config))

    def _write_config(self, study: str, config: Mapping[str, Any]) -> None:
        with _writer(self.folder / "study") as writer:
            lines = [f"    {key}: {value}" for key, value in flat(config).items()]
            writer.add_text("dropsearch/study", study)
            writer.add_text("dropsearch/config", "\n".join(lines))

    def epoch(self, spec: TrialSpec, metrics: EpochMetrics) -> None:
        """Add one point of a running trial's curves; write it if the trial takes long."""
        key, now = spec.key, self._clock()
        self._waiting.setdefault(key, []).append(metrics)
        if now - self._began.setdefault(key, now) >= LIVE_SECONDS:
            self._safely(lambda: self._write_points(key))

    def end(self, result: TrialResult) -> None:
        """Write a finished trial."""
        self._safely(lambda: self._write_trial(result))

    def missing(self, keys: Iterable[str]) -> set[str]:
        """Return the trials that are not written yet."""
        return set(keys) - (self._ended.keys() if self._ended else set())

    def finish(self, summary: Summary, artifacts: Sequence[Path]) -> None:
        """Write the summary metrics of arms and the figures."""
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
            # Remove points that a dead process wrote for this trial.
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


def _writer(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter  # imports tensorboard

    return SummaryWriter(str(folder))


def _hyperparameters(params: Mapping[str, Any], metrics: Mapping[str, float]) -> tuple[Any, Any, Any]:
    """Return the protocol buffers of TensorBoard's table of hyperparameters."""
    from torch.utils.tensorboard.summary import hparams

    plain = {key: value if isinstance(value, bool | int | float) else str(value) for key, value in params.items()}
    return hparams(plain, dict(metrics))
