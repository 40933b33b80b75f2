"""Protocols between engines, which train trials, and feeds, which hand out trials and receive their results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from dropsearch.core.batches import BatchForm
from dropsearch.core.records import INTERRUPTED as INTERRUPTED
from dropsearch.core.records import EpochMetrics, Monitor, TrialResult, TrialSpec

Convolutions = Literal["grouped", "by row"]
SHARED_SEED = 0
"""The seed of the masks, or of the batches, of all trials of a search if they share them."""


class Feed(Protocol):
    """Hands out trials and receives their metrics and results. Each call handles several trials in one write."""

    most_at_once: int | None
    """Maximum number of open trials, None for no limit. Samplers learn only from trials that have ended."""

    @property
    def held(self) -> bool:
        """Whether the last `ask` returned fewer trials than available until others progress; ask again later."""
        ...

    def ask(self, count: int) -> list[TrialSpec]:
        """Return up to `count` trials to train; fewer if no more are left."""
        ...

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Record one epoch of several trials; return for each trial whether it is to be pruned."""
        ...

    def tell(self, results: Sequence[TrialResult]) -> None:
        """Record the results of trials. They are stored durably when this returns."""
        ...

    def cancelled(self) -> bool:
        """Return whether to stop training now and tell the open trials as interrupted."""
        ...


class GivenTrials:
    """A feed of given trials, none of which is pruned; `results` keeps what they end with, by number."""

    most_at_once: int | None = None
    held = False

    def __init__(self, specs: Sequence[TrialSpec]) -> None:
        self._left = list(specs)
        self.results: dict[int, TrialResult] = {}

    def ask(self, count: int) -> list[TrialSpec]:
        """Return the next trials."""
        asked, self._left = self._left[:count], self._left[count:]
        return asked

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Prune none."""
        return [False for _ in reports]

    def tell(self, results: Sequence[TrialResult]) -> None:
        """Keep the results."""
        self.results.update({result.spec.number: result for result in results})

    def cancelled(self) -> bool:
        """Never stop."""
        return False


class Engine(Protocol):
    """Trains all trials of a feed."""

    @property
    def description(self) -> str:
        """Engine, width and device in one line, with the reason if a faster engine cannot be used."""
        return self.describe()

    def describe(self, processes: int = 1) -> str:
        """Return the description of several processes that run this engine."""
        ...

    def run(self, feed: Feed) -> None:
        """Train until the feed has no more trials or is cancelled."""
        ...

    def close(self) -> None:
        """Release the engine's resources; most have none."""


def describe_engine(mode: str, device: str, width: int, *, processes: int = 1, reason: str = "") -> str:
    """Return the description of an engine, whose mode is vectorized or sequential, on cpu or cuda.

    Example:
        >>> describe_engine("vectorized", "cuda", 32)
        'vectorized, 32 trials at once on cuda'
        >>> describe_engine("vectorized", "cpu", 16, processes=2)
        '2 processes x 16 trials, vectorized, on cpu'
        >>> describe_engine("sequential", "cpu", 1, reason="engine=sequential")
        'sequential on cpu: engine=sequential'
    """
    trials = "1 trial" if width == 1 else f"{width} trials"
    if processes > 1:
        described = f"{processes} processes x {trials}, {mode}, on {device}"
    elif mode == "vectorized":
        described = f"vectorized, {trials} at once on {device}"
    else:
        described = f"{mode} on {device}"
    return f"{described}: {reason}" if reason else described


class TrialData(Protocol):
    """The training and validation set of a trial."""

    def train_loader(self, seed: int) -> Any:
        """Return the training batches; their order is a function of seed and epoch."""
        ...

    def train_part_loader(self) -> Any:
        """Return a fixed part of the training set, of the size of the validation set at most."""
        ...

    def val_dataloader(self) -> Any:
        """Return the validation batches."""
        ...


class DataSource(TrialData, Protocol):
    """Data that an engine can train on.

    For rows, `train_loader` returns a `RowLoader` or, if `reads_by_row` is true, a loader that each row reads
    separately; its batches are then a function of seed, epoch and batch number.
    """

    def for_trial(self, spec: TrialSpec) -> TrialData:
        """Return the data of a trial: this source, or another training and validation set.

        For rows, all loaders of another one are `RowLoader`s, of the same tensors and lengths for every trial.
        """
        ...


class RowLoader(Protocol):
    """A loader for vectorized training: examples in memory, and the order of each epoch."""

    tensors: tuple[Tensor, ...]
    """All examples, `[examples, ...]` each."""
    form: BatchForm
    batch_size: int

    def order(self, epoch: int) -> Tensor:
        """Return the indices of an epoch's examples, int64; their number is a multiple of the batch size."""
        ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


def is_in_memory(data: Any) -> bool:
    """Return whether rows use examples in memory; otherwise each row reads its own loader."""
    return not getattr(data, "reads_by_row", False)


def validates_by_row(data: Any) -> bool:
    """Return whether validation batches differ between trials, so that each row reads its own (`val_loader`)."""
    return getattr(data, "validates_by_row", False)


def device_of(data: Any) -> torch.device:
    """Return the device of a data source's rows."""
    return data.train_loader(0).tensors[0].device if is_in_memory(data) else data.device


@dataclass(frozen=True)
class TrainerSettings:
    """Training settings shared by all trials."""

    max_epochs: int
    accelerator: str = "auto"
    """auto, cpu or gpu."""
    precision: str = "32-true"
    gradient_clip_val: float | None = None
    """Maximum gradient norm, None for no limit; see `clip`."""
    monitor: Monitor = field(default_factory=Monitor)
    trainer: Callable[[], Mapping[str, Any]] = dict
    """Returns the user's Trainer arguments, with new callbacks for each sequential trial."""
    shared_masks: bool = False
    """Whether all trials of a search draw their masks from the same uniform numbers, so that masks are nested."""
    shared_batches: bool = False
    """Whether all trials of a search read the same batches, in the same order and with the same random numbers."""
    convolutions: Convolutions = "grouped"
    """Whether vectorized convolutions run as one grouped convolution or row by row."""

    def clip(self, spec: TrialSpec) -> float | None:
        """Return the maximum gradient norm of a trial: its own value if that is searched; None for no limit."""
        return spec.hyperparameters.get("trainer.gradient_clip_val", self.gradient_clip_val)

    @property
    def accumulation(self) -> int:
        """How many batches there are to a step of the optimizer."""
        return int(self.trainer().get("accumulate_grad_batches") or 1)

    @property
    def clips_by(self) -> str:
        """What is clipped of gradients: norm or value."""
        return str(self.trainer().get("gradient_clip_algorithm") or "norm")

    def measures_part(self, spec: TrialSpec, every: int, epoch: int, curve: Sequence[EpochMetrics]) -> bool:
        """Return whether a trial measures the train loss with dropout off after an epoch.

        Trials of a search measure it once in `every` whole epochs, counted back from the last one; a trial that ends
        earlier may measure none. Retrainings, whose curves and gaps a report shows, measure it after each epoch.
        """
        every = every if spec.phase == "search" else 1
        last = self.max_epochs - 1
        left, left_before = last - epoch, last - (curve[-1].epoch if curve else -1)
        due = -(-left // every) * every
        return due < left_before and (due == 0 or due <= self.max_epochs - every)

    def mask_seed(self, spec: TrialSpec) -> int:
        """Return the mask seed of a trial. Confirmation trials never share masks: they must be independent."""
        return SHARED_SEED if self.shared_masks and spec.phase == "search" else spec.seed

    def batch_seed(self, spec: TrialSpec) -> int:
        """Return the seed of a trial's batches. Confirmation trials never share batches: they must be independent."""
        return SHARED_SEED if self.shared_batches and spec.phase == "search" else spec.seed


CheckpointPath = Callable[[TrialSpec], Path | None]
"""Returns where to save the weights of a trial's best epoch, or None to save nothing."""
