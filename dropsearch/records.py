"""What travels between rooms: frozen dataclasses, standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["COMPLETE", "PRUNED", "FAIL"]
Purpose = Literal["search", "confirm"]

INTERRUPTED = "interrupted"
"""The reason of a trial that was stopped from outside before it ended: it will be trained again."""


@dataclass(frozen=True)
class Site:
    """One place where a model drops activations."""

    name: str
    """The module's path, with ``#2``, ``#3`` ... where one module drops more than once in a forward."""
    kind: str
    """input, hidden, conv, rnn, attention, embedding or residual."""
    rate: float
    """The probability that an activation is dropped, as the module itself has it; nan where that cannot be known."""
    activations: int
    """How many activations one example passes through the site."""
    controllable: bool = True
    reason: str = ""
    """Why the site cannot be controlled; empty where it can."""


@dataclass(frozen=True)
class Arm:
    """One setting of the ablation."""

    name: str
    dropout: Literal["off", "search", "shared", "textbook"]
    batchnorm: bool
    title: str


ARMS: Mapping[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("none", "off", batchnorm=False, title="neither"),
        Arm("dropout", "search", batchnorm=False, title="dropout"),
        Arm("batchnorm", "off", batchnorm=True, title="BatchNorm"),
        Arm("both", "search", batchnorm=True, title="dropout and BatchNorm"),
        Arm("dropout_shared", "shared", batchnorm=False, title="dropout, one rate for all sites"),
        Arm("textbook", "textbook", batchnorm=False, title="dropout at the textbook's rates"),
    )
}


@dataclass(frozen=True)
class TrialSpec:
    """Everything that decides a trial's result, but for what all trials of an arm share."""

    arm: str
    number: int
    """The number in its study (one study per arm for the search, another for the confirmation)."""
    seed: int
    """Initial weights, batch order and masks are functions of this seed."""
    rates: Mapping[str, float]
    """Rate by site name; empty in an arm without dropout."""
    lr: float
    weight_decay: float
    params: Mapping[str, Any] = field(default_factory=dict)
    """What the sampler proposed, in Optuna's names."""
    purpose: Purpose = "search"
    configuration: int | None = None
    """In a confirmation: the number of the search trial that is retrained."""

    @property
    def key(self) -> str:
        """A name that is unique within one study: ``dropout/3`` or ``dropout/confirm/12``."""
        middle = "/confirm/" if self.purpose == "confirm" else "/"
        return f"{self.arm}{middle}{self.number}"


@dataclass(frozen=True)
class EpochMetrics:
    """One point of a trial's curves. Losses are means over examples, in nats; accuracies in [0, 1]."""

    epoch: int
    """Counted from 0."""
    train_loss: float
    """With dropout off, on a fixed part of the training set as large as the validation set."""
    train_loss_as_trained: float
    """The mean over the epoch's batches while the weights moved, with dropout on."""
    val_loss: float
    train_acc: float = math.nan
    val_acc: float = math.nan
    monitored: float | None = None
    """What is minimised where that is not `val_loss`: see `Monitor.objective`."""
    logged: Mapping[str, float] = field(default_factory=dict)
    """What else the module logged at its validation, by the module's own names."""

    @property
    def objective(self) -> float:
        """What trials are chosen by: the less the better."""
        return self.val_loss if self.monitored is None else self.monitored


@dataclass(frozen=True)
class Monitor:
    """The metric that trials are chosen by, as the module logs it."""

    name: str = "val_loss"
    mode: Literal["min", "max"] = "min"

    @property
    def is_val_loss(self) -> bool:
        """Whether it is the validation loss, the less the better."""
        return self == Monitor()

    def objective(self, value: float) -> float:
        """Turn the metric into what is minimised, or that back into the metric."""
        return value if self.mode == "min" else -value


@dataclass(frozen=True)
class Judge:
    """What the confirmed winners of arms are compared by, seed by seed."""

    metric: str = "test_acc"
    scores: Literal["test_acc", "test_loss", "val_loss"] = "test_acc"
    """Where the numbers stand: in `TestScores`, or in the winner's retrainings."""
    label: str = "test accuracy"
    percent: bool = True
    higher_is_better: bool = True


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended, and its whole curve."""

    spec: TrialSpec
    state: State
    curve: tuple[EpochMetrics, ...]
    seconds: float
    reason: str = ""
    """Why the trial failed or was stopped; empty for COMPLETE."""
    checkpoint: str = ""
    """Path of the Lightning checkpoint with the weights of the best epoch, where one was asked for."""

    @property
    def interrupted(self) -> bool:
        """Whether the trial was stopped from outside, so that this is not how it ends."""
        return self.state == "FAIL" and self.reason == INTERRUPTED

    @property
    def best(self) -> EpochMetrics | None:
        """The epoch with the least objective (the validation loss), None where no epoch ended with a finite one."""
        finite = [point for point in self.curve if math.isfinite(point.objective)]
        return min(finite, key=lambda point: point.objective, default=None)


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A paired difference between two arms: metric of `a` minus metric of `b`, seed by seed."""

    a: str
    b: str
    metric: str
    differences: tuple[float, ...]
    difference: Interval
    p: float
    """Exact two-sided Wilcoxon signed-rank."""
    p_holm: float
    """Adjusted for all contrasts that were planned (Holm 1979)."""


@dataclass(frozen=True)
class Confirmed:
    """One configuration retrained on fresh seeds: its trials, in the order of the seeds."""

    number: int
    """The number of the search trial that is confirmed."""
    results: tuple[TrialResult, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the retrained trials."""
        return tuple(result.spec.seed for result in self.results)

    @property
    def val_loss(self) -> tuple[float, ...]:
        """Best objective (validation loss) of each seed; inf where a retraining failed, however well it had begun."""
        return tuple(r.best.objective if r.best and r.state != "FAIL" else math.inf for r in self.results)

    @property
    def val_acc(self) -> tuple[float, ...]:
        """Validation accuracy at the epoch of the best validation loss."""
        return tuple(result.best.val_acc if result.best else math.nan for result in self.results)

    @property
    def mean_val_loss(self) -> float:
        """The mean of `val_loss`: what decides the winner of an arm."""
        return sum(self.val_loss) / len(self.val_loss) if self.results else math.inf


@dataclass(frozen=True)
class TestScores:
    """What the confirmed winner of an arm scored when the test set was opened."""

    __test__ = False  # not a test class, whatever its name says to pytest

    opened_at: str
    """ISO 8601, UTC."""
    loss: tuple[float, ...]
    """Mean cross-entropy, one a seed, in the order of the winner's results."""
    acc: tuple[float, ...]
    openings: int = 1
    """How often the arm's study has opened the test set: again only where continuing it changed the winner."""


@dataclass(frozen=True)
class ArmOutcome:
    """All that is known of an arm."""

    arm: Arm
    trials: tuple[TrialResult, ...]
    confirmed: tuple[Confirmed, ...] = ()
    winner: Confirmed | None = None
    test: TestScores | None = None
    textbook: Mapping[str, float] = field(default_factory=dict)
    """The typical rate of each site of this arm, beside which the rates found are shown."""
    monitor: Monitor = Monitor()

    @property
    def best(self) -> TrialResult | None:
        """The trial with the least validation loss of the search, before confirmation."""
        complete = [t for t in self.trials if t.state == "COMPLETE" and t.best is not None]
        return min(complete, key=lambda t: t.best.objective if t.best else math.inf, default=None)


def best_arm(arms: Mapping[str, ArmOutcome]) -> str | None:
    """Return the arm whose confirmed winner has the least mean validation loss, None where there is none.

    The test set has no say in it: it is for judging the choice, not for making it.
    """
    won = {name: outcome.winner for name, outcome in arms.items() if outcome.winner}
    return min(won, key=lambda name: won[name].mean_val_loss, default=None)


@dataclass(frozen=True)
class Summary:
    """What a run found: everything that the report, MLflow's parent run and results.json show."""

    study: str
    model: str
    data: str
    seed: int
    versions: Mapping[str, str]
    seconds: float
    engine: str
    sites: tuple[Site, ...]
    """The sites of the model in its dropout arms, in the order of a forward pass."""
    arms: Mapping[str, ArmOutcome]
    comparisons: tuple[Comparison, ...]
    config: Mapping[str, Any] = field(default_factory=dict)
    """The resolved configuration, as plain containers."""
    mlflow: Mapping[str, str] = field(default_factory=dict)
    """tracking_uri, experiment, experiment_id and run_id of the parent run; empty with tracking=none."""
    commands: Mapping[str, str] = field(default_factory=dict)
    """Exact commands: "mlflow" opens the UI, "reload" reloads the winner, "retrain", "continue"."""
    monitor: Monitor = Monitor()
    judge: Judge = Judge()
    notes: tuple[str, ...] = ()
    """What a reader must know of this run: what was not searched, or was not measured."""
    complete: bool = True
    """False where the run was interrupted and this is what was done until then."""
