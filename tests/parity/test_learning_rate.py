"""The learning rate and weight decay of a trial are those that its optimisers step with, or they are not searched."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from lightning import LightningModule
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, CyclicLR, LambdaLR, OneCycleLR, ReduceLROnPlateau

from dropsearch.core.records import TrialSpec
from dropsearch.training.adapters.hyperparameters import Route, arguments_of, routes, with_groups_set
from dropsearch.training.adapters.probe import probe
from dropsearch.training.adapters.route_check import checked_routes
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.sequential import SequentialEngine
from tests.parity.conftest import EPOCHS, SEED, losses, plain, source
from tests.parity.test_rates import Net
from tests.training.conftest import Queue

SETTINGS = TrainerSettings(EPOCHS, "cpu", precision="64-true")
SPEC = TrialSpec("none", 0, SEED, {}, lr=0.02, weight_decay=0.0)


class Base(Net):
    """Without dropout; its learning rate stands in `configure_optimizers`."""

    lr = 0.05

    def __init__(self) -> None:
        super().__init__(0.0)

    def configure_optimizers(self) -> Any:
        return SGD(self.parameters(), self.lr)


class Warm:
    """A schedule as timm's: it reads its base values once, keeps them, and writes groups from them."""

    def __init__(self, optimizer: Optimizer, start: float) -> None:
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.base_values = [group["initial_lr"] for group in optimizer.param_groups]
        self.steps = [(value - start) / 4 for value in self.base_values]
        self.start, self.epoch = start, 0
        self.write([start for _ in self.base_values])

    def write(self, values: list[float]) -> None:
        for group, value in zip(self.optimizer.param_groups, values, strict=True):
            group["lr"] = value

    def step(self, epoch: int, metric: Any = None) -> None:
        self.write([self.start + epoch * each for each in self.steps])

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class KeepsBases(Base):
    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return [optimizer], [{"scheduler": Warm(optimizer, 1e-3), "interval": "step"}]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        scheduler.step(self.global_step, metric)


class Groups(Base):
    def configure_optimizers(self) -> Any:
        second = {"params": self.last.parameters(), "lr": self.lr * 4}
        return AdamW([{"params": self.first.parameters()}, second], self.lr)


class Cosine(Base):
    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return [optimizer], [CosineAnnealingLR(optimizer, EPOCHS, eta_min=1e-3)]


class Linear(Base):
    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        steps = self.trainer.estimated_stepping_batches
        schedule = LambdaLR(optimizer, lambda step: 1 - step / (2 * steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Plateau(Base):
    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        schedule = ReduceLROnPlateau(optimizer, patience=0, threshold=10.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "val_loss"}}


class Own(Base):
    """With values of its own: the schedule gives the first rate."""

    def configure_optimizers(self) -> Any:
        optimizer = SGD(self.parameters(), 1.0, momentum=0.9)
        schedule = OneCycleLR(optimizer, max_lr=25 * self.lr, total_steps=8)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Cyclic(Base):
    def configure_optimizers(self) -> Any:
        optimizer = SGD(self.parameters(), 1.0)
        schedule = CyclicLR(optimizer, self.lr, 3 * self.lr, step_size_up=2)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Two(Base):
    """Two optimisers, of which a schedule drives the first with values of its own."""

    automatic_optimization = False

    def configure_optimizers(self) -> Any:
        first, last = SGD(self.first.parameters(), 1.0, momentum=0.9), SGD(self.last.parameters(), 2 * self.lr)
        return [first, last], [OneCycleLR(first, max_lr=25 * self.lr, total_steps=9)]

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            optimizer.step()
        self.lr_schedulers().step()  # type: ignore[union-attr]


class Reading(Base):
    """Warms up in a hook, from the rate that its optimiser began with."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        for group in self.optimizers().optimizer.param_groups:  # type: ignore[union-attr]
            group.setdefault("peak", group["lr"])
            group["lr"] = group["peak"] * min(1.0, (self.global_step + 1) / 3)


KINDS = [Base, KeepsBases, Groups, Cosine, Linear, Plateau, Own, Cyclic, Two, Reading]


def by_groups(kind: type[Base], spec: TrialSpec = SPEC) -> Any:
    module = kind()
    with_groups_set(module, spec, (Route("lr", "groups"),))
    return module


@pytest.mark.parametrize("kind", KINDS)
def test_a_trial_equals_plain_lightning_with_the_rate_by_hand(kind: type[Base]) -> None:
    feed = Queue([SPEC])
    from dropsearch.core.global_state import seeded

    def make(spec: TrialSpec) -> LightningModule:
        with seeded(spec.seed):
            return by_groups(kind, spec)

    def by_hand() -> LightningModule:
        module = kind()
        module.lr = SPEC.lr
        return module

    SequentialEngine(make, source(), SETTINGS).run(feed)
    assert losses(feed.results[0]) == pytest.approx(plain(by_hand), rel=1e-12)


@pytest.mark.parametrize(("kind", "low", "high"), [(Base, 0.02, 0.02), (KeepsBases, 0.001, 0.001 + 7 * 0.019 / 4)])
def test_a_trial_tells_the_rates_that_were_used(kind: type[Base], low: float, high: float) -> None:
    feed = Queue([SPEC])
    SequentialEngine(lambda spec: by_groups(kind, spec), source(), SETTINGS).run(feed)
    assert feed.results[0].lr_used == pytest.approx((low, high))


class Deaf(Base):
    """Takes arguments and ignores them."""

    def __init__(self, lr: float = 0.1, weight_decay: float = 0.0) -> None:
        super().__init__()


class Hearing(Base):
    def __init__(self, lr: float = 0.1) -> None:
        super().__init__()
        self.lr = lr


class Fixed(Base):
    """Steps with values of its own, whatever its optimiser was made with."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (1 + self.global_step)
        optimizer.step(closure=optimizer_closure)


class DeafAndFixed(Deaf, Fixed): ...


def found(kind: type[Base], *names: str) -> tuple[Route, ...]:
    def make(spec: TrialSpec, chosen: tuple[Route, ...]) -> Any:
        module = kind(**arguments_of(spec, chosen))
        with_groups_set(module, spec, chosen)
        return module

    batches = {"train_dataloaders": source().train_loader(0), "val_dataloaders": source().val_dataloader()}
    spec = dataclasses.replace(SPEC, weight_decay=1e-4)
    ways = routes(set(names), probe(kind(), batches, SETTINGS).optimizers)
    return checked_routes(make, spec, batches, SETTINGS, ways)


@pytest.mark.parametrize(
    ("kind", "names", "how"),
    [
        *((kind, (), "groups") for kind in KINDS),
        (Hearing, ("lr",), "argument"),
        (Deaf, ("lr", "weight_decay"), "groups"),
        (Fixed, (), "nothing"),
        (DeafAndFixed, ("lr", "weight_decay"), "nothing"),
    ],
)
def test_the_way_is_the_one_that_the_optimisers_follow(kind: type[Base], names: Any, how: str) -> None:
    assert found(kind, *names)[0].how == how


def test_an_ignored_weight_decay_is_set_on_the_groups() -> None:
    assert [route.how for route in found(DeafAndFixed, "lr", "weight_decay")] == ["nothing", "groups"]


def test_rates_without_an_effect_are_named() -> None:
    route = found(Fixed)[0]
    assert route.description == (
        "the learning rate is not searched: the optimizers step at 0.025 to 0.1 whatever is set"
    ), route.description
