"""A tracker for user-supplied Lightning loggers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from dropsearch.core.errors import InputError
from dropsearch.core.records import Summary, TrialResult, TrialSpec
from dropsearch.tracking.metrics import OWN, flat, of_epoch, of_summary, of_trial, params_of
from dropsearch.tracking.tracker import Tracker


class LoggerTracker(Tracker):
    """Logs to one Lightning logger, such as ``CSVLogger``, or to one logger per trial.

    A single logger is one run: each finished trial is a step with its best metrics, and its parameters under
    `dropsearch/`. A function makes one logger per trial, which receives curves and hyperparameters.
    """

    def __init__(self, logger: Any) -> None:
        super().__init__("the logger could not log everything")
        self._whole: Any = logger if _is_logger(logger) else None
        self._make: Callable[[TrialSpec], Any] | None = logger if self._whole is None else None
        if self._whole is None and not callable(logger):
            raise InputError(
                f"logger must be a Lightning logger or a function that makes one, got {type(logger).__name__}: as in "
                'logger=CSVLogger("logs")'
            )
        self._ended = 0

    def start(self, *, config: Mapping[str, Any], **_: Any) -> None:
        """Log the configuration."""
        if self._whole is not None:
            self._safely(lambda: self._whole.log_hyperparams(flat(config)))

    def end(self, result: TrialResult) -> None:
        """Log a finished trial; its curve is not logged before."""
        self._safely(lambda: self._log(result))

    def _log(self, result: TrialResult) -> None:
        if self._make is not None:
            logger = self._make(result.spec)
            if not _is_logger(logger):
                raise TypeError(f"logger(spec) must return a Lightning logger, got {type(logger).__name__}")
            logger.log_hyperparams(params_of(result.spec))
            for metrics in result.curve:
                logger.log_metrics(of_epoch(metrics), step=metrics.epoch)
            logger.log_metrics(of_trial(result), step=len(result.curve))
            logger.finalize("failed" if result.state == "FAIL" else "success")
            return
        best = of_epoch(result.best) if result.best else {}
        numbers = {f"{OWN}/{name}": float(value) for name, value in params_of(result.spec).items() if _is_number(value)}
        self._whole.log_metrics({**best, **of_trial(result), **numbers}, step=self._ended)
        self._ended += 1

    def finish(self, summary: Summary, artifacts: Sequence[Path]) -> None:
        """Log the numbers of the arms, and close the logger."""
        if self._whole is not None:
            self._safely(lambda: self._whole.log_metrics(of_summary(summary), step=self._ended))
            self._safely(lambda: self._whole.finalize("success" if summary.complete else "aborted"))

    def close(self, status: Literal["KILLED", "FAILED"] = "FAILED") -> None:
        """Close the logger of an unfinished run."""
        if self._whole is not None:
            self._safely(lambda: self._whole.finalize("failed"))


def _is_logger(given: Any) -> bool:
    return hasattr(given, "log_metrics") and hasattr(given, "log_hyperparams") and not isinstance(given, type)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
