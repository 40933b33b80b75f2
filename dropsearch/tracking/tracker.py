"""The tracker: what a run tells a tracking service."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from dropsearch.core.errors import first_cause
from dropsearch.core.records import EpochMetrics, Summary, TrialResult, TrialSpec


class Tracker:
    """Writes a study to a tracking service: `connect`, `start`, `epoch` and `end` for trials, `log_model`, `finish`.

    This class tracks nothing; a tracker overrides what its service takes. After `start`, failures of the service raise
    no errors, so that training continues; `problems` has one line for each.
    """

    def __init__(self, incomplete: str = "") -> None:
        self._incomplete, self._problems = incomplete, list[str]()

    @property
    def location(self) -> Mapping[str, str]:
        """tracking_uri and experiment, available after `connect`; empty without tracking."""
        return {}

    @property
    def info(self) -> Mapping[str, str]:
        """The location, with experiment_id and run_id of the parent run; empty without tracking."""
        return self.location

    @property
    def problems(self) -> Sequence[str]:
        """Failed writes, one line each."""
        return self._problems

    def connect(self, experiment: str) -> None:
        """Connect to the service and create the experiment if necessary; no run is opened yet.

        Raises:
            InputError: The service is not reachable or not usable.
        """

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

        Args:
            study: Displayed name.
            study_id: Globally unique id of the study.
            config: The resolved configuration.
            tags: Tags of the parent run.
            data: name, digest, source, sizes, input_shape and classes.
            amends: Nothing is trained; `finish` extends the parent run of the study's last finished invocation, or a
                new one if there is none.

        Raises:
            InputError: The service is not usable.
        """

    def epoch(self, spec: TrialSpec, metrics: EpochMetrics) -> None:
        """Add one point of a running trial's curves; takes microseconds."""

    def end(self, result: TrialResult) -> None:
        """Write a finished trial; returns immediately."""

    def missing(self, keys: Iterable[str]) -> set[str]:
        """Return the given trial keys (`TrialSpec.key`) that have no ended run yet; empty if they are unknown."""
        return set()

    def log_model(self, model: Callable[[], Any], example: Any, tags: Mapping[str, str]) -> None:
        """Log the winner.

        `model` returns it, a torch module on the CPU in eval mode; `example` is a batch: an array or a tuple of arrays.
        """

    def finish(self, summary: Summary, artifacts: Sequence[Path]) -> None:
        """Write the results of the study and close all runs."""

    def close(self, status: Literal["KILLED", "FAILED"] = "FAILED") -> None:
        """Close every open run with a status; does nothing after `finish`."""

    def _safely(self, write: Callable[[], object]) -> None:
        """Write; a failure is noted as a problem, once, and does not stop the training."""
        try:
            write()
        except Exception as error:  # a service, or a user's logger, may raise anything
            line = f"{self._incomplete}: {type(error).__name__}: {first_cause(error)[:200]}"
            if line not in self._problems:
                self._problems.append(line)
