"""Inputs and results of measures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dropsearch.core.records import TrialSpec


class NotMeasuredError(Exception):
    """A measure does not apply to a model; the one-line message says why."""


@dataclass(frozen=True)
class Examples:
    """Examples of a data set, as one batch."""

    inputs: tuple[Tensor, ...]
    """Inputs of the network, `[examples, ...]` each: features, and for sequences their lengths `[examples]`."""
    targets: Tensor
    """Classes [examples]."""

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: Tensor) -> Examples:
        """Return the examples at indices `[rows]`."""
        rows = rows.to(self.targets.device)
        return Examples(tuple(part.index_select(0, rows) for part in self.inputs), self.targets[rows])

    def sample(self, most: int, seed: int) -> Examples:
        """Return a seeded sample of `most` examples in their order, or all if there are fewer."""
        if len(self) <= most:
            return self
        drawn = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:most]
        return self.take(drawn.sort().values)


@dataclass(frozen=True)
class Settings:
    """Resolution of the measures."""

    monte_carlo: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100)
    """Increasing numbers of passes with dropout on."""
    severities: int = 5
    """Number of severities of each corruption."""
    seed: int = 0
    """Seed of all random numbers of measures, the same for every model of a run."""


@dataclass(frozen=True)
class TrainedModel:
    """One retraining of an arm's winner with the weights of its best epoch, and data to evaluate it."""

    spec: TrialSpec
    module: nn.Module
    """The module in evaluation mode; measures must not change it."""
    predict: Callable[..., Tensor]
    """Maps the inputs of a batch to logits [examples, classes], through `module`."""
    held_out: Examples
    """The test set, or the validation set if there is none."""
    validation: Examples
    train: Examples
    """Training examples, as many as the validation set has."""
    is_image: bool
    """Whether features are images [channels, height, width] and not vectors, series or sequences."""
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True)
class Measured:
    """The results of one measure for one model."""

    values: Mapping[str, float] = field(default_factory=dict)
    """Numbers by name; nan if they do not apply to the model."""
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)
    """x and y of curves by name. A curve has the same x for every model of a run."""
