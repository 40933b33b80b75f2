"""The trackers by the name that `tracking=` gives them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dropsearch.core.errors import InputError, close_match
from dropsearch.core.extras import require
from dropsearch.core.records import EpochMetrics, Summary, TrialResult, TrialSpec
from dropsearch.tracking.tracker import NullTracker, Tracker


@dataclass(frozen=True)
class TrackerKind:
    """A kind of tracker."""

    make: Callable[[str | None, Path], Tracker]
    """Makes one from `tracking.uri` and the output directory."""
    extra: str = ""
    """The extra of dropsearch that it needs."""


def _none(uri: str | None, output_dir: Path) -> Tracker:
    return NullTracker()


def _mlflow(uri: str | None, output_dir: Path) -> Tracker:
    """Make a tracker that writes to `uri`, else to MLFLOW_TRACKING_URI as it is now, else to `mlflow.db`."""
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
    "none": TrackerKind(_none),
}
"""Every kind: to add a tracker, write its file and name it here and in `conf/tracking`."""


def tracker_names(given: str | Sequence[str]) -> tuple[str, ...]:
    """Return the trackers that `tracking` names, each once, without ``none``.

    Raises:
        InputError: There is no such tracker.
    """
    names = [given] if isinstance(given, str) else list(given)
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"tracking must be of {', '.join(TRACKERS)}, got {name!r}{close_match(name, TRACKERS)}")
    return tuple(dict.fromkeys(name for name in names if name != "none"))


def check_extras(given: str | Sequence[str]) -> None:
    """Check that what the named trackers need is installed.

    Raises:
        InputError: It is not; the message names the extra.
    """
    for name in tracker_names(given):
        require(f"tracking={name}", TRACKERS[name].extra)


def make_tracker(
    given: str | Sequence[str], *, uri: str | None, output_dir: Path, more: Iterable[Tracker] = ()
) -> Tracker:
    """Return the tracker that `tracking` names; for several, one that hands on to each.

    Args:
        given: A name or a list of names.
        uri: Where MLflow is.
        output_dir: The output directory of the run.
        more: Trackers that stand beside those.

    Raises:
        InputError: An unknown name, or a URI that MLflow cannot write to.
    """
    made = [*(TRACKERS[name].make(uri, output_dir) for name in tracker_names(given)), *more]
    if not made:
        return NullTracker()
    return made[0] if len(made) == 1 else SeveralTrackers(made)


class SeveralTrackers:
    """Hands everything on to several trackers.

    Args:
        trackers: At least one.
    """

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self.trackers = tuple(trackers)
        self._missing: dict[str, tuple[Tracker, ...]] = {}
        """The trackers that lack a trial, by key, of trials that an earlier run ended."""

    @property
    def location(self) -> Mapping[str, str]:
        """Where all of them write."""
        return {key: value for tracker in self.trackers for key, value in tracker.location.items()}

    @property
    def info(self) -> Mapping[str, str]:
        """What all of them tell."""
        return {key: value for tracker in self.trackers for key, value in tracker.info.items()}

    @property
    def problems(self) -> Sequence[str]:
        """What could not be written, of each."""
        return [line for tracker in self.trackers for line in tracker.problems]

    def connect(self, experiment: str) -> None:
        """Reach all of them."""
        for tracker in self.trackers:
            tracker.connect(experiment)

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
        """Start all of them."""
        for tracker in self.trackers:
            tracker.start(study=study, study_id=study_id, config=config, tags=tags, data=data, amends=amends)

    def epoch(self, spec: TrialSpec, metrics: EpochMetrics) -> None:
        """Note one point with each."""
        for tracker in self.trackers:
            tracker.epoch(spec, metrics)

    def end(self, result: TrialResult) -> None:
        """Write a trial that ended with each; one of an earlier run with those that lack it."""
        for tracker in self._missing.pop(result.spec.key, self.trackers):
            tracker.end(result)

    def missing(self, keys: Iterable[str]) -> set[str]:
        """Return the trials that at least one of them lacks."""
        wanted = set(keys)
        found = [(tracker, tracker.missing(wanted)) for tracker in self.trackers]
        lacking = set().union(*(keys for _, keys in found))
        self._missing = {key: tuple(tracker for tracker, keys in found if key in keys) for key in lacking}
        return lacking

    def log_model(self, model: Callable[[], Any], example: Any, tags: Mapping[str, str]) -> None:
        """Log the winner with each."""
        for tracker in self.trackers:
            tracker.log_model(model, example, tags)

    def finish(self, summary: Summary, artifacts: Sequence[Path]) -> None:
        """Finish all of them."""
        for tracker in self.trackers:
            tracker.finish(summary, artifacts)

    def close(self, status: Literal["KILLED", "FAILED"] = "FAILED") -> None:
        """Close all of them, however one ends."""
        for tracker in self.trackers:
            with suppress(Exception):  # the others are to be closed as well
                tracker.close(status)
