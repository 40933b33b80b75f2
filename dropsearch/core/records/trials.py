"""A trial: what decides it, and how it ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dropsearch.core.records.metrics import EpochMetrics

State = Literal["COMPLETE", "PRUNED", "FAIL"]
TrialPhase = Literal["search", "confirm", "sites"]


INTERRUPTED = "interrupted"
"""The reason of a trial that was stopped from outside before it ended: it will be trained again."""

OPTIMIZER_OPTIONS = ("optimizer.betas", "optimizer.momentum", "optimizer.nesterov")
"""What may be searched of any optimiser that has it: a trial's values are set on its groups."""


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
    phase: TrialPhase = "search"
    configuration: int | None = None
    """In a confirmation: the number of the search trial that is retrained."""
    repeat: int = 1
    """Which repetition of the arm's search it belongs to: 1 is the one that all choices rest on."""
    variation: str = ""
    """In a retraining of the winner with something changed: what, in words."""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    """What else was searched: values by configuration key, such as `model.width`."""

    @property
    def key(self) -> str:
        """A name that is unique in a run: ``dropout/3``, ``dropout/repeat-2/3`` or ``dropout/confirm/12``."""
        again = f"/repeat-{self.repeat}/" if self.repeat > 1 else "/"
        middle = again if self.phase == "search" else f"/{self.phase}/"
        return f"{self.arm}{middle}{self.number}"


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
    checkpoint_sha256: str = ""
    """The checkpoint's sha256 in hexadecimal, as it was written."""

    @property
    def interrupted(self) -> bool:
        """Whether the trial was stopped from outside, so that this is not how it ends."""
        return self.state == "FAIL" and self.reason == INTERRUPTED

    @property
    def best(self) -> EpochMetrics | None:
        """The epoch with the least objective (the validation loss), None where no epoch ended with a finite one."""
        finite = [point for point in self.curve if math.isfinite(point.objective)]
        return min(finite, key=lambda point: point.objective, default=None)
