"""Between an engine that trains and those who want trials trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor

from dropsearch.core.records import INTERRUPTED as INTERRUPTED
from dropsearch.core.records import EpochMetrics, Monitor, TrialResult, TrialSpec

Convolutions = Literal["grouped", "by row"]
SHARED_MASK_SEED = 0
"""The seed of all masks where trials share them."""


class Feed(Protocol):
    """Hands out trials and takes in what becomes of them, many at a time: a study writes each batch at once."""

    most_at_once: int | None
    """How many trials may be open at once, None for any number: a sampler learns only from trials that ended."""

    def ask(self, count: int) -> list[TrialSpec]:
        """Return the next trials to train: as many as asked for, fewer where no more are left."""
        ...

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Take in an epoch of each of some trials; return of each whether it is to be pruned."""
        ...

    def tell(self, results: Sequence[TrialResult]) -> None:
        """Take in how trials ended; when this returns, nothing can lose it any more."""
        ...

    def cancelled(self) -> bool:
        """Return whether training is to stop now, with the running trials closed as interrupted."""
        ...


class Engine(Protocol):
    """Trains all trials of a feed."""

    @property
    def description(self) -> str:
        """What trains, how wide, and where: one line."""
        ...

    def run(self, feed: Feed) -> None:
        """Train until the feed has no more trials or is cancelled."""
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...


class DataSource(Protocol):
    """The part of a data module that training needs."""

    def train_loader(self, seed: int) -> Any:
        """Return the training batches, in an order that is a function of (seed, epoch)."""
        ...

    def train_part_loader(self) -> Any:
        """Return a fixed part of the training set, as large as the validation set."""
        ...

    def val_dataloader(self) -> Any:
        """Return the validation batches."""
        ...


class RowLoader(Protocol):
    """The part of a loader that an array needs: examples in memory, and the order of an epoch."""

    tensors: tuple[Tensor, ...]
    batch_size: int

    def order(self, epoch: int) -> Tensor:
        """Return the indices of the examples of an epoch, int64, whole batches only."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]: ...


class RowDataSource(DataSource, Protocol):
    """Data that lies in memory, so that each row of an array can take its own batches."""

    def train_loader(self, seed: int) -> RowLoader:
        """Return the training batches, in an order that is a function of (seed, epoch)."""
        ...


@dataclass(frozen=True)
class TrainerSettings:
    """What every trial's training shares."""

    max_epochs: int
    accelerator: str = "auto"
    """auto, cpu or gpu."""
    precision: str = "32-true"
    gradient_clip_val: float | None = None
    """The largest norm of a trial's gradient, None for no limit; see `clip`."""
    monitor: Monitor = field(default_factory=Monitor)
    """What trials are chosen by."""
    is_user_module: bool = False
    """The module is somebody else's: it may keep state, draw random numbers and log what it likes."""
    trainer: Callable[[], Mapping[str, Any]] = dict
    """Makes the user's own arguments of the Trainer, callbacks among them, anew for each trial that trains alone."""
    shared_masks: bool = False
    """All trials of a search draw their masks from one field of uniform numbers: those of two rates are nested."""
    convolutions: Convolutions = "grouped"
    """How an array runs a convolution: one of all rows, in groups, or one for each row."""

    def clip(self, spec: TrialSpec) -> float | None:
        """Return the largest norm of a trial's gradient: its own where that is searched, None for no limit."""
        return spec.hyperparameters.get("trainer.gradient_clip_val", self.gradient_clip_val)

    def mask_seed(self, spec: TrialSpec) -> int:
        """Return the seed of a trial's masks: its own in a confirmation, whose seeds are to be independent."""
        return SHARED_MASK_SEED if self.shared_masks and spec.phase == "search" else spec.seed


CheckpointPath = Callable[[TrialSpec], Path | None]
"""Where the weights of a trial's best epoch go; None where they are not wanted."""
