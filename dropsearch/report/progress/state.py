"""What is known of a run while it works: the trials of each arm, the best so far, and the work that is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dropsearch.core.records import EpochMetrics, Monitor, TrialResult, TrialSpec

FIRST_GUESS = 5.0
"""How many ended trials weigh as much as the number of epochs that a trial was expected to take."""


@dataclass(frozen=True)
class Point:
    """A trial of a search that ended: its rates and what it scored."""

    rates: Mapping[str, float]
    objective: float
    state: str


@dataclass
class ArmState:
    """What is known of one arm."""

    name: str
    ended: dict[str, int] = field(default_factory=Counter)
    """How many trials of the search ended, by how."""
    confirmed: int = 0
    """How many retrainings ended."""
    best: Point | None = None
    points: list[Point] = field(default_factory=list)
    running: dict[str, list[float]] = field(default_factory=dict)
    """The objectives of the trials that train, epoch by epoch, by key."""


class RunState:
    """The trials of a run as they begin, train and end.

    Args:
        arms: The names of the arms.
        n_trials: How many trials the search of an arm has.
        max_epochs: The most epochs of a trial.
        pruned_share: The share of `max_epochs` that a trial of the search is expected to take.
        monitor: What trials are chosen by.
    """

    def __init__(
        self,
        arms: Iterable[str],
        n_trials: int = 0,
        max_epochs: int = 1,
        pruned_share: float = 1.0,
        monitor: Monitor = Monitor(),  # noqa: B008 - it is frozen
    ) -> None:
        self.arms = {name: ArmState(name) for name in arms}
        self.n_trials, self.max_epochs, self.monitor = n_trials, max_epochs, monitor
        self._pruned_share = pruned_share
        self._epochs, self._ended = 0, 0
        """Of the trials of the current stage that ended."""
        self.expected = self._guess = 0.0
        """Epochs that a trial of the current stage takes."""
        self.current = ""
        """The arm of the trial that spoke last."""

    def known(self, results: Iterable[TrialResult]) -> None:
        """Take in what an earlier run ended."""
        for result in results:
            self._count(result)

    def begin(self, is_search: bool) -> None:
        """Begin a stage in which trials are trained."""
        self.current = ""
        for arm in self.arms.values():
            arm.running.clear()
        self._epochs = self._ended = 0
        self.expected = self._guess = self.epochs_of(is_search)

    def epochs_of(self, is_search: bool) -> float:
        """Return how many epochs a trial is expected to take before any has ended."""
        return self.max_epochs * (self._pruned_share if is_search else 1.0)

    def epoch(self, spec: TrialSpec, metrics: EpochMetrics) -> None:
        """Take in an epoch of a trial that trains."""
        self.current = spec.arm
        self._arm(spec.arm).running.setdefault(spec.key, []).append(metrics.objective)

    def end(self, result: TrialResult) -> None:
        """Take in a trial that ended."""
        self.current = result.spec.arm
        self._arm(result.spec.arm).running.pop(result.spec.key, None)
        self._epochs, self._ended = self._epochs + len(result.curve), self._ended + 1
        self.expected = (FIRST_GUESS * self._guess + self._epochs) / (FIRST_GUESS + self._ended)
        self._count(result)

    def open_epochs(self) -> float:
        """Return the epochs that running trials have done, as far as they were expected of them."""
        curves = [curve for arm in self.arms.values() for curve in arm.running.values()]
        return sum(min(len(curve), self.expected) for curve in curves)

    def _arm(self, name: str) -> ArmState:
        return self.arms.setdefault(name, ArmState(name))

    def _count(self, result: TrialResult) -> None:
        arm, spec = self._arm(result.spec.arm), result.spec
        if spec.phase == "confirm":
            arm.confirmed += 1
        if spec.phase != "search" or spec.repeat > 1 or result.interrupted:
            return
        arm.ended[result.state] += 1
        best = result.best
        if best is None:
            return
        point = Point(spec.rates, best.objective, result.state)
        arm.points.append(point)
        if result.state == "COMPLETE" and (arm.best is None or point.objective < arm.best.objective):
            arm.best = point
