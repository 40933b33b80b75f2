"""What a measure is given, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from dropsearch.core.records import TrialSpec


class NotMeasuredError(Exception):
    """A model does not have what is measured, or cannot be looked at; the message says why, on one line."""


@dataclass(frozen=True)
class Examples:
    """Examples of a data set, as one batch."""

    inputs: tuple[Tensor, ...]
    """What the network takes, each [examples, ...]: the features, and for sequences their lengths [examples]."""
    targets: Tensor
    """Classes [examples]."""

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Settings:
    """How finely is measured."""

    monte_carlo: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100)
    """Numbers of passes with dropout on, rising."""
    severities: int = 5
    """Strengths of each corruption."""
    seed: int = 0
    """What all random numbers of a measure derive from: the same for every model of a run."""


@dataclass(frozen=True)
class TrainedModel:
    """One retraining of an arm's winner, with the weights of its best epoch, and the data it is looked at with."""

    spec: TrialSpec
    module: nn.Module
    """In evaluation mode; a measure leaves it as it was."""
    predict: Callable[..., Tensor]
    """Maps the inputs of a batch to logits [examples, classes], through `module`."""
    held_out: Examples
    """The test set, or where there is none the validation set."""
    validation: Examples
    train: Examples
    """As many training examples as the validation set has."""
    is_image: bool
    """Whether features are images [channels, height, width] and not vectors, series or sequences."""
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True)
class Measured:
    """What one measure says of one model."""

    values: Mapping[str, float] = field(default_factory=dict)
    """By name; nan where the model does not have what is measured."""
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)
    """By name: x and y of a curve. One name has the same x for every model of a run."""
