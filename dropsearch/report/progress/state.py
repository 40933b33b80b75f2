"""The state of a running search: trials of each arm, best results so far, and remaining work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dropsearch.core.records import ARMS, EpochMetrics, Monitor, TrialResult, TrialSpec

FIRST_GUESS = 5.0
"""Number of ended trials that weigh as much as the prior expectation of epochs per trial."""


@dataclass(frozen=True)
class Point:
    """Rates and score of an ended search trial."""

    rates: Mapping[str, float]
    objective: float
    state: str


@dataclass
class ArmState:
    """The state of an arm."""

    name: str
    ended: dict[str, int] = field(default_factory=Counter)
    """Number of ended search trials by final state."""
    confirmed: int = 0
    """Number of ended retrainings."""
    best: Point | None = None
    points: list[Point] = field(default_factory=list)
    running: dict[str, list[float]] = field(default_factory=dict)
    """Objectives of running trials by epoch, by trial key."""

    @property
    def searches_rates(self) -> bool:
        """Whether rates differ between its trials: those of an arm without dropout are all 0."""
        return self.name not in ARMS or ARMS[self.name].dropout != "off"


class RunState:
    """The trials of a run.

    Args:
        pruned_share: Expected share of `max_epochs` of a search trial.
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
        """Epochs and number of the ended trials of the current stage."""
        self.expected = self._guess = 0.0
        """Expected epochs of a trial of the current stage."""
        self.current = ""
        """The arm of the last reporting trial."""

    def known(self, results: Iterable[TrialResult]) -> None:
        """Add trials that an earlier run ended."""
        for result in results:
            self._count(result)

    def begin(self, is_search: bool) -> None:
        """Start a training stage."""
        self.current = ""
        for arm in self.arms.values():
            arm.running.clear()
        self._epochs = self._ended = 0
        self.expected = self._guess = self.epochs_of(is_search)

    def epochs_of(self, is_search: bool) -> float:
        """Return the expected number of epochs of a trial before any has ended."""
        return self.max_epochs * (self._pruned_share if is_search else 1.0)

    def start(self, spec: TrialSpec) -> None:
        """Add a running trial."""
        self.current = self.current or spec.arm
        self._arm(spec.arm).running.setdefault(spec.key, [])

    def epoch(self, spec: TrialSpec, metrics: EpochMetrics) -> None:
        """Add an epoch of a running trial."""
        self.current = spec.arm
        self._arm(spec.arm).running.setdefault(spec.key, []).append(metrics.objective)

    def end(self, result: TrialResult) -> None:
        """Add an ended trial."""
        self.current = result.spec.arm
        self._arm(result.spec.arm).running.pop(result.spec.key, None)
        self._epochs, self._ended = self._epochs + len(result.curve), self._ended + 1
        self.expected = (FIRST_GUESS * self._guess + self._epochs) / (FIRST_GUESS + self._ended)
        self._count(result)

    def open_epochs(self) -> float:
        """Return the finished epochs of running trials, each at most the expected number."""
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
