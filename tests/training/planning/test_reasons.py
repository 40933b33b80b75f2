"""Each reason for training sequentially: what it is, its file and line, and what would change it."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning import Callback
from torch import Tensor, nn

import dropsearch
from dropsearch.datasets.user_data import UserData
from dropsearch.training.planning.compatibility import not_of_rows, remedy
from dropsearch.training.planning.equivalence import check_equivalence
from tests.training.vectorized.laws import Case, trials
from tests.user_modules import data, generative, metrics, specimens
from tests.user_modules.batches import Formed, ReadingNames
from tests.user_modules.nets import LitNet

LATTER = torch.optim.lr_scheduler.ReduceLROnPlateau


class Recomputing(LitNet):
    """Computes a metric object in a step."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.mean = metrics.MeanMetric()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.mean.update(batch[0].mean())
        return super().training_step(batch, batch_idx) + self.mean.compute()


class Shared(LitNet):
    """Counts the steps of all trials together, in new items of a dictionary."""

    seen: ClassVar[Any] = {}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.count()
        return super().training_step(batch, batch_idx) * len(self.seen)

    def count(self) -> None:
        self.seen[len(self.seen)] = 1


class OfClass(Shared):
    """In a list of the class."""

    seen: ClassVar[Any] = []

    def count(self) -> None:
        self.seen.append(1)


STEPS: list[int] = []


class OfFile(Shared):
    """In a list of the file."""

    def count(self) -> None:
        STEPS.append(1)


class OfFunction(Shared):
    """In a variable of a function."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        steps = 0

        def add() -> None:
            nonlocal steps
            steps += 1

        self.count = add  # type: ignore[method-assign]


class Meter:
    """A count of steps that the loss depends on."""

    def __init__(self) -> None:
        self.steps = 0

    def weigh(self, loss: Tensor) -> Tensor:
        self.steps += 1
        return loss * self.steps


METER = Meter()


class OfObjectOfFile(LitNet):
    """Counts in an object of the file."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return METER.weigh(super().training_step(batch, batch_idx))


class OfObjectOfClass(LitNet):
    """Counts in an object of the class."""

    meter = Meter()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.meter.weigh(super().training_step(batch, batch_idx))


REGISTRY = type("Registry", (Meter,), {"__module__": "pytest"})()


class OfObjectOfOthers(LitNet):
    """Uses an object of an installed package that counts its uses."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        REGISTRY.weigh(loss)
        return loss


def test_registries_of_other_packages_are_left_alone() -> None:
    assert Case(OfObjectOfOthers, data.Digits()).reason(["drop"]) == ""


class OfHook(OfClass):
    """In a list of the class, which a hook fills."""

    def count(self) -> None:
        """Leave it to the hook."""

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(1)


class OfIterator(Shared):
    """In an iterator."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.steps = itertools.count()

    def count(self) -> None:
        next(self.steps)


GIVEN = SimpleNamespace(steps=0)


class Given(Shared):
    """In an object that the constructor does not create."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.given = GIVEN

    def count(self) -> None:
        self.given.steps += 1


class GivenLater(Shared):
    """In an attribute that such an object has not had before."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.given = SHARED

    def count(self) -> None:
        self.given.steps = getattr(self.given, "steps", 0) + 1


SHARED = SimpleNamespace()


COUNT = 0


class NumberOfHook(Shared):
    """In a number of the file, which a hook counts up."""

    def count(self) -> None:
        self.seen[COUNT] = 1

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        global COUNT
        COUNT += 1


class Growing(Shared):
    """In a list of many items in an object."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.held = SimpleNamespace(steps=[0] * 20_000)

    def count(self) -> None:
        self.held.steps.append(1)


class NewObject(LitNet):
    """Keeps its loss in a new object."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.object = SimpleNamespace(loss=loss.detach())
        return loss


class OfNewObject(LitNet):
    """Keeps its loss in an object that a hook creates."""

    def on_train_epoch_start(self) -> None:
        self.object = SimpleNamespace(loss=torch.zeros(()))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.object.loss = loss.detach()
        return loss


class Rooted(Shared):
    """In a dictionary that holds itself, which a hook changes."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.tree: dict[str, Any] = {"steps": 0}
        self.tree["root"] = self.tree

    def count(self) -> None:
        self.seen[self.tree["steps"]] = 1

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.tree["steps"] += 1


class Nesting(LitNet):
    """Appends to a list in a list."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.kept: list[list[Tensor]] = [[]]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.kept[0].append(loss.detach())
        return loss


class Lossless(LitNet):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"score": super().training_step(batch, batch_idx)}


class Custom(LitNet):
    """Reduces what it logs by its own function."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.log("spread", batch[0].mean(), reduce_fx=torch.var)


class Mode(LitNet):
    def on_train_epoch_start(self) -> None:
        self.drop.eval()


class Ending(LitNet):
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return -1 if batch_idx else None


class Drawing(LitNet):
    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.log("drawn", torch.rand(()))


class Dropping(LitNet):
    def on_train_epoch_end(self) -> None:
        self.log("mean", F.dropout(self.last.bias.detach(), 0.5).mean())


class Quadratic(LitNet):
    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters())


class Several(LitNet):
    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD([each], 0.1) for each in self.parameters()]


class Unmonitored(LitNet):
    monitored: Any = None
    interval = "epoch"

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        schedule = {"scheduler": LATTER(optimizer), "monitor": self.monitored, "interval": self.interval}
        return {"optimizer": optimizer, "lr_scheduler": schedule}


class EachStep(Unmonitored):
    monitored, interval = "train_loss", "step"


class Absent(Unmonitored):
    monitored = "val_f1"


class Failing(LitNet):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        raise KeyError("missing")


class Single(LitNet):
    """Multiplies by a float32 tensor that NumPy made, as grouped products of experts take nothing else."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.flatten(1) @ torch.from_numpy(np.zeros((64, 10), np.float32))


class Native(LitNet):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.native_dropout(x, 0.5, True)[0])


MODULES: tuple[tuple[type, str], ...] = (
    (metrics.Unfreezing, "on_train_epoch_start freezes or unfreezes parameters"),
    (Drawing, "on_train_batch_end draws random numbers"),
    (Dropping, "on_train_epoch_end drops activations"),
    (specimens.Setting, "a step sets lr of a parameter group, which differs between trials"),
    (specimens.Updating, "a step changes a parameter group, which differs between trials"),
    (specimens.Counting, "a step reads params of a parameter group, which differs between trials"),
    (specimens.CalledAhead, "LookingAhead changes weights or gradients before it evaluates the loss"),
    (specimens.CalledAfterReset, "Resetting changes weights or gradients before it evaluates the loss"),
    (specimens.CalledTwice, "CallingTwice evaluates the loss several times per step"),
    (metrics.Stopping, "the module sets trainer.should_stop"),
    (specimens.Sparse, "neighbours is a sparse tensor"),
    (specimens.Scaled, "embedding has max_norm, by which a step changes its weights"),
    (Shared, "train_loss .* of Shared differs between vectorized and sequential training"),
    (OfClass, r"a step changes OfClass.seen, which no row has for itself"),
    (OfFile, "a step changes the global STEPS, which no row has for itself"),
    (OfFunction, "a step changes the variable steps of the function self.count, which no row has for itself"),
    (OfObjectOfFile, "a step changes the global METER.steps, which no row has for itself"),
    (OfObjectOfClass, "a step changes OfObjectOfClass.meter.steps, which no row has for itself"),
    (OfHook, r"on_train_batch_end changes OfClass.seen, which no row has for itself"),
    (OfIterator, "a step reads self.steps, an iterator"),
    (Given, "a step or a hook changes self.given, which all trials share"),
    (GivenLater, "a step or a hook changes self.given, which all trials share"),
    (NewObject, "a step keeps a tensor in self.object, an object that the constructor does not create"),
    (OfNewObject, "a step keeps a tensor in self.object, an object that the constructor does not create"),
    (NumberOfHook, "on_train_batch_end changes the global COUNT, which no row has for itself"),
    (Growing, "a step changes self.held.steps by changing a container of more than 10,000 items"),
    (Rooted, "a step or a hook changes self.tree, which holds itself"),
    (generative.GAN, "the module uses manual optimization"),
    (generative.Filling, "normal_ fills a tensor that all trials share"),
    (generative.Counting, "a step draws .* torch draws by poisson"),
    (generative.OwnGenerator, "a step draws .* randn draws from its own generator"),
    (Recomputing, "a step computes the metric mean"),
    (Nesting, "a step changes self.kept by changing a container that it holds"),
    (Lossless, "training_step does not return a loss"),
    (Custom, "a step logs spread with a custom reduction"),
    (Mode, "on_train_epoch_start changes the mode of a part of the module"),
    (Ending, "on_train_batch_start ends an epoch early"),
    (Quadratic, "LBFGS evaluates the loss several times per step"),
    (Several, "configure_optimizers returns list, not a single optimizer"),
    (Unmonitored, "ReduceLROnPlateau watches a metric and names none"),
    (EachStep, "ReduceLROnPlateau watches a metric at each step"),
    (Absent, "a schedule monitors val_f1, which the module does not log"),
    (Failing, "KeyError: 'missing'"),
    (Native, "the module draws random numbers from torch"),
)


def assert_complete(found: str, pattern: str) -> None:
    assert re.match(pattern, found), found
    assert re.search(r" \(\w+\.py:\d+\)$", found), found
    assert found.count(".py:") == 1
    assert remedy(found)


@pytest.mark.parametrize(("make", "pattern"), MODULES)
def test_module(make: type, pattern: str) -> None:
    assert_complete(Case(make, data.Digits()).reason(["critic.2"] if make is generative.GAN else ["drop"]), pattern)


def test_a_module_without_float64() -> None:
    case, (one, other) = Case(Single, data.Digits()), trials(2, ["drop"])
    found = check_equivalence(lambda spec: Single(lr=spec.lr), case.source.in_rows(), case.settings, (one, other))
    assert_complete(found, "the module does not run in float64, in which trials are compared")


def test_batch() -> None:
    assert_complete(Case(ReadingNames, Formed("dict with names")).reason(), "a step uses a str of its batch")


class Moving(data.Digits):
    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        return super().transfer_batch_to_device(batch, device, dataloader_idx)


class Augmenting(data.Digits):
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0] + torch.rand(()), batch[1]


class Staged(data.Digits):
    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0] * (2 if self.trainer and self.trainer.training else 1), batch[1]


class Counting(data.Digits):
    moved = 0

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.moved += 1
        return batch[0] * self.moved, batch[1]


class Twice(data.Digits):
    def val_dataloader(self) -> Any:
        return [super().val_dataloader(), super().val_dataloader()]


class Once(data.Digits):
    def train_dataloader(self) -> Any:
        return (batch for batch in super().train_dataloader())


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (Moving, "the data module overrides transfer_batch_to_device"),
        (Augmenting, "the data module overrides on_after_batch_transfer"),
        (Staged, "the data module overrides on_before_batch_transfer"),
        (Counting, "the data module overrides on_after_batch_transfer"),
        (Twice, "there are 2 validation loaders"),
        (Once, "the training batches come from a generator"),
        (data.Streaming, "the training batches come from a GoingOn"),
    ],
)
def test_data(make: type, pattern: str) -> None:
    assert_complete(UserData(make(), "Digits").incompatibility, pattern)


class Averaged(Callback):
    """Keeps averages of the parameters."""

    def on_train_batch_end(self, trainer: Any, pl_module: nn.Module, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.kept = {name: value.clone() for name, value in pl_module.named_parameters()}


def test_callback() -> None:
    (found,) = not_of_rows({"callbacks": [Averaged()]})
    assert_complete(found, "the callback Averaged works with sequential training only")


def raised() -> Iterator[str]:
    """Yield the messages of all reasons that the source code raises, with X for what is filled in."""
    root = Path(dropsearch.__file__).parent
    for file in (*root.glob("training/**/*.py"), *root.glob("dropout/**/*.py"), root / "datasets/lockstep.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "UnsupportedError":
                text = node.args[0]
                parts = text.values if isinstance(text, ast.JoinedStr) else [text]
                if any(isinstance(part, ast.Constant) for part in parts):
                    yield "".join(str(part.value) if isinstance(part, ast.Constant) else "9" for part in parts)
            elif isinstance(node, ast.Constant) and "{}" in str(node.value):  # what `unsupported` fills in
                yield str(node.value).replace("{}", "9")


def test_each_raised_reason_has_a_remedy() -> None:
    messages = list(raised())
    assert len(messages) > 20
    assert [message for message in messages if not remedy(message)] == []
