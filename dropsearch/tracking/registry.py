"""Registry of trackers by the name used in `tracking=`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dropsearch.core.errors import InputError, close_match, require
from dropsearch.core.records import EpochMetrics, Summary, TrialResult, TrialSpec
from dropsearch.tracking.tracker import Tracker


@dataclass(frozen=True)
class TrackerKind:
    """A kind of tracker."""

    make: Callable[[str | None, Path], Tracker]
    """Creates a tracker from `tracking.uri` and the output directory."""
    extra: str = ""
    """The required extra of dropsearch."""


def _mlflow(uri: str | None, output_dir: Path) -> Tracker:
    """Return a tracker that writes to `uri`, or to MLFLOW_TRACKING_URI, or to `mlflow.db`."""
    from dropsearch.tracking.mlflow.address import resolve
    from dropsearch.tracking.mlflow.mlflow_tracker import MlflowTracker

    return MlflowTracker(resolve(uri, os.environ.get("MLFLOW_TRACKING_URI"), output_dir), output_dir)


def _wandb(uri: str | None, output_dir: Path) -> Tracker:
    from dropsearch.tracking.wandb_tracker import WandbTracker

    return WandbTracker(output_dir)


def _tensorboard(uri: str | None, output_dir: Path) -> Tracker:
    from dropsearch.tracking.tensorboard_tracker import TensorBoardTracker

    return TensorBoardTracker(output_dir)


TRACKERS: Mapping[str, TrackerKind] = {
    "mlflow": TrackerKind(_mlflow, "mlflow"),
    "wandb": TrackerKind(_wandb, "wandb"),
    "tensorboard": TrackerKind(_tensorboard, "tensorboard"),
    "none": TrackerKind(lambda uri, output_dir: Tracker()),
}
"""All trackers. To add one, write its file and list it here and in `conf/tracking`."""


def tracker_names(given: str | Sequence[str]) -> tuple[str, ...]:
    """Return the unique names of the trackers in `tracking`, without ``none``."""
    names = [given] if isinstance(given, str) else list(given)
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"tracking must be of {', '.join(TRACKERS)}, got {name!r}{close_match(name, TRACKERS)}")
    return tuple(dict.fromkeys(name for name in names if name != "none"))


def check_extras(given: str | Sequence[str]) -> None:
    """Check that the extras of the named trackers are installed."""
    for name in tracker_names(given):
        require(f"tracking={name}", TRACKERS[name].extra)


def make_tracker(
    given: str | Sequence[str], *, uri: str | None, output_dir: Path, more: Iterable[Tracker] = ()
) -> Tracker:
    """Return the tracker named in `tracking`; several are combined in one."""
    made = [*(TRACKERS[name].make(uri, output_dir) for name in tracker_names(given)), *more]
    if not made:
        return Tracker()
    return made[0] if len(made) == 1 else SeveralTrackers(made)


class SeveralTrackers(Tracker):
    """Forwards all calls to several trackers."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self.trackers = tuple(trackers)
        self._missing: dict[str, tuple[Tracker, ...]] = {}
        """By key of trials of earlier runs, the trackers that lack them."""

    @property
    def location(self) -> Mapping[str, str]:
        """Locations of all trackers."""
        return {key: value for tracker in self.trackers for key, value in tracker.location.items()}

    @property
    def info(self) -> Mapping[str, str]:
        """Information of all trackers."""
        return {key: value for tracker in self.trackers for key, value in tracker.info.items()}

    @property
    def problems(self) -> Sequence[str]:
        """Problems of all trackers."""
        return [line for tracker in self.trackers for line in tracker.problems]

    def connect(self, experiment: str) -> None:
        """Connect all trackers."""
        for tracker in self.trackers:
            tracker.connect(experiment)

    def start(self, **given: Any) -> None:
        """Start all trackers."""
        for tracker in self.trackers:
            tracker.start(**given)

    def epoch(self, spec: TrialSpec, metrics: EpochMetrics) -> None:
        """Add one point to all trackers."""
        for tracker in self.trackers:
            tracker.epoch(spec, metrics)

    def end(self, result: TrialResult) -> None:
        """Write a finished trial to all trackers; one of an earlier run only to those that lack it."""
        for tracker in self._missing.pop(result.spec.key, self.trackers):
            tracker.end(result)

    def missing(self, keys: Iterable[str]) -> set[str]:
        """Return the trials that at least one tracker lacks."""
        wanted = set(keys)
        found = [(tracker, tracker.missing(wanted)) for tracker in self.trackers]
        lacking = set().union(*(keys for _, keys in found))
        self._missing = {key: tuple(tracker for tracker, keys in found if key in keys) for key in lacking}
        return lacking

    def log_model(self, model: Callable[[], Any], example: Any, tags: Mapping[str, str]) -> None:
        """Log the winner to all trackers."""
        for tracker in self.trackers:
            tracker.log_model(model, example, tags)

    def finish(self, summary: Summary, artifacts: Sequence[Path]) -> None:
        """Finish all trackers."""
        for tracker in self.trackers:
            tracker.finish(summary, artifacts)

    def close(self, status: Literal["KILLED", "FAILED"] = "FAILED") -> None:
        """Close all trackers, even if one fails."""
        for tracker in self.trackers:
            with suppress(Exception):  # close the others as well
                tracker.close(status)
