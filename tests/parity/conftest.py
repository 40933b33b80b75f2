"""A trial and plain Lightning side by side, on the same small data."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from dropsearch.core.global_state import seeded
from dropsearch.core.records import Monitor, TrialResult, TrialSpec
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.sequential import SequentialEngine
from dropsearch.training.trainers import quiet_lightning
from tests.experiment.conftest import one_figure  # noqa: F401
from tests.training.conftest import Queue, Source

EPOCHS = 2
SEED = 7

Make = Callable[[], LightningModule]


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def source(*shape: int) -> Source:
    generator = torch.Generator().manual_seed(3)

    def part(count: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(count, *(shape or (6,)), generator=generator, dtype=torch.float64)
        return x, x.flatten(1).sum(1, keepdim=True)

    return Source(part(32), part(16))


def trial(
    make: Make, rates: Mapping[str, float], arm: str = "dropout", data: Any = None, **more: Any
) -> tuple[TrialResult, LightningModule]:
    """Train a trial as the sequential engine does; return its result and its module."""
    built: list[LightningModule] = []

    def made(spec: TrialSpec) -> LightningModule:
        with seeded(spec.seed):
            built.append(make())
        return built[-1]

    settings = TrainerSettings(EPOCHS, "cpu", precision="64-true", monitor=more.pop("monitor", Monitor()), **more)
    feed = Queue([TrialSpec(arm, 0, SEED, dict(rates), lr=1e-2, weight_decay=0.0)])
    SequentialEngine(made, data or source(), settings).run(feed)
    return feed.results[0], built[-1]


def losses(result: TrialResult) -> list[float]:
    assert result.state == "COMPLETE", result.reason
    return [point.val_loss for point in result.curve]


class Curve(Callback):
    """Notes what the last validation of each epoch logs."""

    def __init__(self, name: str = "val_loss") -> None:
        self.name = name
        self.points: list[float] = []
        self.last: float | None = None

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.last = None if trainer.sanity_checking else float(trainer.callback_metrics[self.name])

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self.last is not None:
            self.points.append(self.last)
        self.last = None


def plain(make: Make, data: Any = None, name: str = "val_loss", callbacks: Sequence[Any] = ()) -> list[float]:
    """Return the validation losses that plain Lightning finds."""
    given, curve = data or source(), Curve(name)
    with seeded(SEED):
        module = make()
    with quiet_lightning(), warnings.catch_warnings(), seeded(SEED):
        trainer = Trainer(
            max_epochs=EPOCHS, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, callbacks=[curve, *callbacks], precision="64-true",
        )  # fmt: skip
        trainer.fit(module, given.train_loader(SEED), given.val_dataloader())
    return curve.points
