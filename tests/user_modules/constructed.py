"""Modules that are built in every way in which a configuration can say it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from lightning import LightningModule
from torch import nn

from tests.user_modules.configured import (
    BuildsItself,
    ByDataclass,
    ByGroup,
    ByNamespace,
    ByPartial,
    HandingOn,
    Points,
    Small,
)

__all__ = ["BuildsItself", "ByDataclass", "ByGroup", "ByNamespace", "ByPartial", "HandingOn", "Points", "Small"]


class Hidden(nn.Module):
    """A network that is an argument."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Dropout(0.3), nn.Linear(hidden, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Held(LightningModule):
    """Keeps a network, a partial optimizer and texts among its hyperparameters."""

    def __init__(
        self, net: nn.Module, optimizer: Callable[..., Any], title: str, tags: Any = (), lr: float = 1e-2
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["net"])
        self.net, self.title, self.tags = net, title, tags

    training_step, validation_step = Small.training_step, Small.validation_step  # type: ignore[assignment]

    def configure_optimizers(self) -> Any:
        return self.hparams["optimizer"](self.parameters(), lr=self.hparams["lr"])

    def __repr__(self) -> str:
        return f"Held({self.title!r}, {list(self.tags)!r})"


class Listed(Small):
    """Takes a list of groups."""

    def __init__(self, blocks: Any, lr: float = 1e-2) -> None:
        super().__init__(blocks[0].hidden * len(blocks), lr)


class Counting(Small):
    """Needs what its data knows."""

    def __init__(self, classes: int, shape: tuple[int, ...], lr: float = 1e-2) -> None:
        super().__init__(2 * classes, lr)
        assert shape == (4,)


class Known(Points):
    classes, shape = 3, (4,)


class Seeded(Small):
    """Needs seeds."""

    def __init__(self, seed: int, random_state: int, lr: float = 1e-2) -> None:
        super().__init__(lr=lr)
        self.seeds = seed, random_state

    def __repr__(self) -> str:
        return f"Seeded{self.seeds}"


class OfGroup(Small):
    """Takes the group `optimizer`."""

    def __init__(self, optimizer: Any, lr: float = 1e-2) -> None:
        super().__init__(lr=lr)
        self.optimizer = optimizer

    def __repr__(self) -> str:
        return f"OfGroup({self.optimizer.name})"


class Fourier(Small):
    """Draws what no checkpoint contains: in its constructor, and in `setup`."""

    directions: torch.Tensor
    late: torch.Tensor

    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr=lr)
        self.register_buffer("directions", torch.randn(4, 4), persistent=False)
        self.shift = random.random()

    def setup(self, stage: str) -> None:
        self.more = nn.Linear(2, 2)
        self.register_buffer("late", torch.randn(3), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.more(self.net((x @ self.directions).cos() + self.shift)) + self.late[:2]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))


class Weighted(Small):
    """Needs a tensor that its data has."""

    def __init__(self, weight: torch.Tensor, lr: float = 1e-2) -> None:
        super().__init__(lr=lr)
        assert weight.shape == (2,)


class Weighing(Points):
    weight = torch.ones(2)


class InSetup(Small):
    """Builds a layer in `setup`."""

    def setup(self, stage: str) -> None:
        self.net[0] = nn.Linear(4, 8)
        self.more = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.more(self.net(x))


class InConfigureModel(Small):
    def configure_model(self) -> None:
        if not hasattr(self, "more"):
            self.more = nn.Linear(2, 2)


class AsksData(InSetup):
    """Asks the data module in `setup`, which no line of Python can have."""

    def setup(self, stage: str) -> None:
        assert self.trainer.datamodule is not None  # type: ignore[attr-defined]
        super().setup(stage)


class Lazy(Small):
    """Its first layer takes its shape from the first batch."""

    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr=lr)
        self.net[0] = nn.LazyLinear(8)


class CompilesForward(LightningModule):
    """Compiles its forward, at whose end torch's compiler meets another call of the module."""

    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__()
        self.lr = lr
        self.net = Hidden(8)
        self.forward = torch.compile(self.forward, backend="eager")  # type: ignore[method-assign]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    training_step, validation_step = Small.training_step, Small.validation_step  # type: ignore[assignment]
    configure_optimizers = Small.configure_optimizers  # type: ignore[assignment]


class Outer:
    class Net(Small):
        """A class in a class."""

    @classmethod
    def net(cls, width: int, lr: float = 1e-2) -> Small:
        return Small(width, lr)


def made(width: int, lr: float = 1e-2) -> Small:
    """Return a module as a function makes it."""
    return Small(width, lr)
