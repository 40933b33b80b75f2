"""What a tracker is, and the one that tracks nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from dropsearch.core.records import EpochMetrics, Summary, TrialResult, TrialSpec


class Tracker(Protocol):
    """Shows a study while it runs and after: `connect`, `start`, `epoch` and `end` for trials, `log_model`, `finish`.

    After `start` nothing here raises because of the tracking server: training is worth more than its
    log. What went wrong stands in `problems`, one line each, for the user to read.
    """

    @property
    def location(self) -> Mapping[str, str]:
        """tracking_uri and experiment, known from `connect` on; empty if not tracked."""
        ...

    @property
    def info(self) -> Mapping[str, str]:
        """tracking_uri, experiment, experiment_id and run_id of the parent run; empty if not tracked."""
        ...

    @property
    def problems(self) -> Sequence[str]:
        """What could not be written, one line each."""
        ...

    def connect(self, experiment: str) -> None:
        """Reach the place to write to, and make the experiment where there is none; no run is opened yet.

        Raises:
            InputError: the place to write to does not answer or cannot be used.
        """
        ...

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

        `study` is the name that is shown, `study_id` tells the study from every other, whatever its name and
        wherever it is kept; `config` is the resolved configuration; `data` has name, digest, source, sizes,
        input_shape and classes.

        With `amends` nothing is trained any more: what `finish` writes is added to the parent run of the study's last
        invocation that came to its end, which stays as it is otherwise; where there is none, to a new one.

        Raises:
            InputError: the place to write to cannot be used.
        """
        ...

    def epoch(self, spec: TrialSpec, metrics: EpochMetrics) -> None:
        """Note one point of a running trial's curves; costs microseconds."""
        ...

    def end(self, result: TrialResult) -> None:
        """Write a trial that ended, whole; returns at once."""
        ...

    def missing(self, keys: Iterable[str]) -> set[str]:
        """Return those of the `TrialSpec.key` of this study that have no ended run yet."""
        ...

    def log_model(self, model: Callable[[], Any], example: Any, tags: Mapping[str, str]) -> None:
        """Log the winner; returns when it is made.

        `model` makes it, a torch module on the CPU in eval mode; `example` is a batch for it, one array or a tuple of
        arrays.
        """
        ...

    def finish(self, summary: Summary, artifacts: Sequence[Path]) -> None:
        """Write what the study found, and close every run."""
        ...

    def close(self, status: Literal["KILLED", "FAILED"] = "FAILED") -> None:
        """Close every open run with that status; does nothing after `finish`."""
        ...


class NullTracker:
    """Tracks nothing."""

    location: Mapping[str, str] = {}
    info: Mapping[str, str] = {}
    problems: Sequence[str] = ()

    def connect(self, experiment: str) -> None:
        """Do nothing."""

    def start(self, **_: Any) -> None:
        """Do nothing."""

    def epoch(self, spec: TrialSpec, metrics: EpochMetrics) -> None:
        """Do nothing."""

    def end(self, result: TrialResult) -> None:
        """Do nothing."""

    def missing(self, keys: Iterable[str]) -> set[str]:
        """Return an empty set: nothing is waited for."""
        return set()

    def log_model(self, model: Callable[[], Any], example: Any, tags: Mapping[str, str]) -> None:
        """Do nothing."""

    def finish(self, summary: Summary, artifacts: Sequence[Path]) -> None:
        """Do nothing."""

    def close(self, status: Literal["KILLED", "FAILED"] = "FAILED") -> None:
        """Do nothing."""
