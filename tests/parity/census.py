"""A trial and plain Lightning on the same module, data and Trainer arguments: what both leave is compared."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from torch import Tensor, nn

from dropsearch.core.errors import UnsupportedError
from dropsearch.core.global_state import seeded
from dropsearch.core.records import Monitor, TrialResult, TrialSpec
from dropsearch.dropout.mask_bits import SiteBits
from dropsearch.training.planning.compatibility import incompatibilities, not_of_rows
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.sequential import SequentialEngine
from dropsearch.training.trainers import quiet_lightning
from dropsearch.training.vectorized.held_once import NotHeldOnceError
from dropsearch.training.vectorized.row_source import RowSource
from dropsearch.training.vectorized.trials import VectorizedTrials
from tests.parity.conftest import SEED, Curve, source
from tests.training.conftest import Queue

EPOCHS = 3


class Cell(LightningModule):
    """A regression with one dropout; the base of the modules that are compared."""

    lr = 0.05

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.first, self.drop, self.last = nn.Linear(6, 8), nn.Dropout(p), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(torch.tanh(self.first(x))))

    def loss(self, batch: Any) -> Tensor:
        return F.mse_loss(self(batch[0]), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("val_loss", self.loss(batch), batch_size=len(batch[0]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), self.lr)


class ByHand(nn.Module):
    """The dropout of plain Lightning, with the mask of a trial: a function of seed, site and step."""

    def __init__(self, site: str, rate: float, clock: list[int]) -> None:
        super().__init__()
        self.site, self.rate, self.clock, self.bits = site, rate, clock, SiteBits()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.rate or self.clock[0] < 0:
            return x
        bits = torch.from_numpy(self.bits.draw(SEED, self.site, self.clock[0], x.numel())).view(x.shape)
        return x * (bits >= round(self.rate * 65536) - 32768) / (1 - self.rate)


@dataclass
class Case:
    """What is compared."""

    module: Callable[[float], LightningModule] = Cell
    """Makes the module, given the rate of its dropout."""
    trainer: Callable[[], Mapping[str, Any]] = dict
    data: Callable[[], Any] = source
    """Returns the data of a trial."""
    loaders: Callable[[], tuple[Any, Any]] | None = None
    """Returns the loaders of plain Lightning; those of the data in the order of the trial's seed by default."""
    rates: tuple[float, ...] = (0.0, 0.5)
    """Of site `drop`."""
    monitor: str = "val_loss"
    epochs: int = EPOCHS
    precision: str = "64-true"
    exact: float = 1e-12
    differs: tuple[str, ...] = field(default=())
    """What a trial and plain Lightning are meant not to have in common."""


@dataclass
class Left:
    """What a training leaves."""

    curve: list[float]
    weights: dict[str, Tensor]
    steps: int
    epoch: int
    metrics: dict[str, float]
    lr: list[float]


def _left(curve: list[float], module: Any, trainer: Any) -> Left:
    lr = [float(group["lr"]) for optimizer in trainer.optimizers for group in optimizer.param_groups]
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    weights = {name: value.detach().clone() for name, value in module.state_dict().items()}
    return Left(curve, weights, trainer.global_step, trainer.current_epoch, metrics, lr)


def _settings(case: Case) -> TrainerSettings:
    monitor = Monitor(case.monitor)
    return TrainerSettings(case.epochs, "cpu", precision=case.precision, monitor=monitor, trainer=case.trainer)


def in_trial(case: Case, rate: float) -> tuple[Left, TrialResult]:
    """Train a trial as the sequential engine does."""
    built: list[Any] = []

    def make(spec: TrialSpec) -> LightningModule:
        with seeded(spec.seed):
            built.append(case.module(0.3))
        return built[-1]

    feed = Queue([TrialSpec("dropout" if rate else "none", 0, SEED, {"drop": rate}, lr=1e-2, weight_decay=0.0)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        SequentialEngine(make, case.data(), _settings(case)).run(feed)
    result = feed.results[0]
    assert result.state == "COMPLETE", result.reason
    return _left([point.objective for point in result.curve], built[-1], built[-1].trainer), result


def in_rows(case: Case, rate: float) -> Left | str:
    """Train a trial in the row between two others; return instead why the module cannot be trained so."""

    def make(spec: TrialSpec) -> LightningModule:
        with seeded(spec.seed):
            return case.module(0.3).double()

    settings, source = _settings(case), case.data()
    rows = source.in_rows() if hasattr(source, "in_rows") else source
    one, other, last = (
        TrialSpec("dropout", n, seed, {"drop": p}, lr=1e-2, weight_decay=0.0)
        for n, (seed, p) in enumerate([(SEED + 1, 0.1), (SEED, rate), (SEED + 2, 0.9)])
    )
    with warnings.catch_warnings(), quiet_lightning():
        warnings.simplefilter("ignore")
        if rows is None:
            return source.incompatibility
        shared = Trainer(max_epochs=case.epochs, accelerator="cpu", barebones=True)
        reasons = [*not_of_rows(case.trainer()), *incompatibilities(make, rows, one, settings.monitor, shared)]
        if reasons:
            return reasons[0]
        for holds_once in (True, False):
            feed = Queue([one, other, last])
            try:
                trials = VectorizedTrials(RowSource(make, rows, settings, feed), 3, holds_once=holds_once)
                row = trials.stack.trial_rows[1]
                trials.fit()
            except NotHeldOnceError:  # as in a search
                continue
            except UnsupportedError as error:
                return str(error)
            break
    for _, error in trials.apart:
        raise error
    result = feed.results[1]
    assert result.state == "COMPLETE", result.reason
    lr = [float(group["lr"]) for group in row.groups]
    weights = {name: value.detach().clone() for name, value in row.module.state_dict().items()}
    curve = [point.objective for point in result.curve]
    return Left(curve, weights, row.updates, row.epoch, _told(result), lr)


class Clock:
    """Counts the training steps of a module, by wrapping the step as its class defines it."""

    def __init__(self, module: Any) -> None:
        self.now, step = [-1], module.training_step

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.now[0] += 1
            return step(*args, **kwargs)

        counted.__wrapped__ = step  # type: ignore[attr-defined]
        vars(module)["training_step"] = counted


def in_plain_lightning(case: Case, rate: float) -> Left:
    """Train with a Trainer and nothing else, the rate set by hand."""
    curve, more = Curve(case.monitor), dict(case.trainer())
    given = case.data() if case.loaders is None else None
    with seeded(SEED):
        module: Any = case.module(0.0)
    if rate:
        module.drop = ByHand("drop", rate, Clock(module).now)
    arguments = {
        "max_epochs": case.epochs, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0,
        "precision": case.precision, **more, "callbacks": [curve, *more.get("callbacks", [])],
    }  # fmt: skip
    with quiet_lightning(), warnings.catch_warnings(), seeded(SEED):
        warnings.simplefilter("ignore")
        trainer = Trainer(**arguments)
        if case.loaders is not None:
            trainer.fit(module, *case.loaders())
        elif hasattr(given, "for_trainer"):
            trainer.fit(module, **given.for_trainer(SEED))
        else:
            trainer.fit(module, given.train_loader(SEED), given.val_dataloader())
    return _left(curve.points, module, trainer)


def _told(result: TrialResult) -> dict[str, float]:
    """Return all that a trial tells of its last epoch, by the names of its module."""
    last = result.curve[-1]
    return {"val_loss": last.val_loss, "val_acc": last.val_acc, **last.logged}


def _check(ours: Left, told: Mapping[str, float], theirs: Left, case: Case, rate: float, *, exact: float) -> None:
    expected = {name: told.get(f"training/{name}", told.get(name)) for name in theirs.metrics}
    assert expected == pytest.approx(theirs.metrics, rel=exact, nan_ok=True), f"metrics at rate {rate}"
    for name in ("curve", "steps", "epoch", "metrics", "lr"):
        if name not in case.differs:
            expected = pytest.approx(getattr(theirs, name), rel=exact, nan_ok=True)
            assert getattr(ours, name) == expected, f"{name} at rate {rate}"
    assert ours.weights.keys() == theirs.weights.keys()
    for name, value in ours.weights.items():
        assert torch.allclose(value, theirs.weights[name], rtol=exact, atol=exact / 100), f"{name} at rate {rate}"


def compare(case: Case) -> None:
    """Check that a sequential trial leaves what plain Lightning leaves, for each rate."""
    for rate in case.rates:
        (ours, result), theirs = in_trial(case, rate), in_plain_lightning(case, rate)
        _check(ours, _told(result), theirs, case, rate, exact=case.exact)


def compare_rows(case: Case, reason: str = "") -> None:
    """Check that a trial in a row leaves what plain Lightning leaves, or that it says why it trains sequentially."""
    for rate in case.rates[-1:]:
        ours = in_rows(case, rate)
        if reason or isinstance(ours, str):
            assert isinstance(ours, str), f"a row trains it, and was not to, as {reason}"
            assert reason, f"a row was to train it, got: {ours}"
            assert reason in ours
            return
        theirs = in_plain_lightning(case, rate)
        _check(replace(ours, metrics=theirs.metrics), ours.metrics, theirs, case, rate, exact=1e-9)
