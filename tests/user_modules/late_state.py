"""Modules whose loss has half the weight from the fourth epoch on, each with the weight in another place."""

from __future__ import annotations

import collections
import functools
import math
import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning import Callback
from torch import Tensor, nn

from tests.user_modules.nets import LitNet


class Weighted(LitNet):
    """A number that a hook sets in each epoch, and that the step reads."""

    def on_train_epoch_start(self) -> None:
        self.is_late = self.current_epoch >= 3
        self.set_weight(0.5 if self.is_late else 1.0)

    def set_weight(self, value: float) -> None:
        self.kept: Any = value

    def weight(self) -> Any:
        return self.kept

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self(x), y) * self.weight()
        self.log("train/loss", loss)
        return loss


class NumPyNumber(Weighted):
    """A number of NumPy."""

    def set_weight(self, value: float) -> None:
        self.kept = np.float32(value)

    def weight(self) -> Any:
        return float(self.kept)


class Array(NumPyNumber):
    """An array."""

    def set_weight(self, value: float) -> None:
        self.kept = np.array(value)


class Namespace(Weighted):
    """An object."""

    def set_weight(self, value: float) -> None:
        self.kept = SimpleNamespace(value=value)

    def weight(self) -> Any:
        return self.kept.value


class Function(Weighted):
    """A function."""

    def set_weight(self, value: float) -> None:
        self.kept = lambda: value

    def weight(self) -> Any:
        return self.kept()


class Keys(Weighted):
    """The keys of a dictionary in a dictionary."""

    def set_weight(self, value: float) -> None:
        self.kept = {"in": {value: "weight"}}

    def weight(self) -> Any:
        return next(iter(self.kept["in"]))


class OnceChanged(Weighted):
    """A number that a hook changes late, read by a property."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._kept = 1.0

    @property
    def kept(self) -> float:  # type: ignore[override]
        """The weight."""
        return self._kept

    def set_weight(self, value: float) -> None:
        if self.is_late:
            self._kept = value


class ByName(OnceChanged):
    """The same, read by its name."""

    def weight(self) -> Any:
        return getattr(self, "_kept")  # noqa: B009


class Hyperparameter(OnceChanged):
    """A hyperparameter."""

    def __init__(self, first: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.save_hyperparameters()

    def set_weight(self, value: float) -> None:
        if self.is_late:
            self.hparams["first"] = value

    def weight(self) -> Any:
        return self.hparams["first"]


class FilledByHook(OnceChanged):
    """A tensor in a dictionary, which a hook changes in place."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.held = {"weight": torch.ones(())}

    def set_weight(self, value: float) -> None:
        if self.is_late:
            self.held["weight"].fill_(value)

    def weight(self) -> Any:
        return self.held["weight"]


class FilledByStep(FilledByHook):
    """A tensor in a dictionary, which a step changes in place."""

    def set_weight(self, value: float) -> None:
        """Leave it to the step."""

    def weight(self) -> Any:
        if self.is_late:
            self.held["weight"].fill_(0.5)
        return self.held["weight"]


class SetByStep(OnceChanged):
    """A number that a step changes."""

    def set_weight(self, value: float) -> None:
        """Leave it to the step."""

    def weight(self) -> Any:
        if self.is_late:
            self._kept = 0.5
        return self._kept


class SetByCallback(SetByStep):
    """A number that `Halving` changes."""

    def weight(self) -> Any:
        return self._kept


class Halving(Callback):
    """Changes the module's weight."""

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Change it late."""
        if trainer.current_epoch == 3:
            pl_module._kept = 0.5


class HeldByMethod(OnceChanged):
    """An attribute of an object of which the module holds a method, and a function with the object as its argument."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        schedule = Schedule()
        self.value, self.set_value = schedule.value, functools.partial(setattr, schedule, "now")

    def set_weight(self, value: float) -> None:
        if self.is_late:
            self.set_value(value)

    def weight(self) -> Any:
        return self.value()


class ReadByLayer(OnceChanged):
    """A number that functions read which the constructor registers with layers, and a hook as well."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner, self.outer, self.held = nn.Identity(), nn.Identity(), 1.0
        self.inner.register_forward_hook(lambda layer, inputs, output: output * self.now() ** 0.5)
        self.outer.register_forward_hook(self.weighted)

    def set_weight(self, value: float) -> None:
        if self.is_late:
            self.held = value

    def now(self) -> float:
        return self.held

    def weighted(self, layer: Any, inputs: Any, output: Tensor) -> Tensor:
        return output * self.held**0.5

    def on_train_epoch_end(self) -> None:
        assert self.weighted(None, None, torch.ones(())) == self.now() ** 0.5

    def weight(self) -> Tensor:
        return self.outer(self.inner(torch.ones((), dtype=torch.float64)))


class NamedAsHook(OnceChanged):
    """A number that methods read whose names begin as those of hooks do."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.held = 1.0

    def set_weight(self, value: float) -> None:
        if self.is_late:
            self.held = value

    def predict_weight(self) -> float:
        return self.held

    def on_weight(self) -> float:
        return self.predict_weight()

    def weight(self) -> float:
        return self.on_weight()


class HeldInUserDict(OnceChanged):
    """An attribute of an object in a `UserDict`, and a number in a `UserList` in it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.held = collections.UserDict(schedule=Schedule(), rest=collections.UserList([1.0]))

    def set_weight(self, value: float) -> None:
        if self.is_late:
            self.held["schedule"].now, self.held["rest"][0] = value / 2, 2.0

    def weight(self) -> Any:
        return self.held["schedule"].value() * self.held["rest"][0]


class Schedule:
    """Keeps a weight."""

    def __init__(self) -> None:
        self.now = 1.0

    def value(self) -> float:
        """Return it."""
        return self.now


class NotANumber(Weighted):
    """A number that is NaN at first."""

    def set_weight(self, value: float) -> None:
        self.kept = value if self.is_late else math.nan

    def weight(self) -> Any:
        return 1.0 if math.isnan(self.kept) else self.kept


class DrawnLate(SetByStep):
    """A number that a step draws."""

    def weight(self) -> Any:
        return random.random() if self.is_late else 1.0


class Counted(SetByStep):
    """A count of steps, in the length of a list that is read in the fourth epoch alone."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seen = self.make_counter()

    def make_counter(self) -> Any:
        return []

    def weight(self) -> Any:
        self.seen.append(1.0)
        return 0.5 if self.is_late and len(self.seen) > 9 else 1.0


class Averaged(Counted):
    """The mean of the last two numbers, which take turns, in a queue that is full before."""

    def make_counter(self) -> Any:
        self.turn = 0.2
        return collections.deque(maxlen=2)

    def weight(self) -> Any:
        self.turn = 1 - self.turn
        self.seen.append(self.turn)
        return sum(self.seen) / 2 if self.is_late else 1.0


class Stacked(Counted):
    """Tensors in a list, which PyTorch reads past its methods: nine of 2, and then of 1."""

    def weight(self) -> Any:
        self.seen.append(torch.tensor(1.0 if self.is_late else 2.0))
        return (torch.stack(self.seen) - 1).sum() / 18 if self.is_late else 1.0


class ReadBeside(Counted):
    """The same, added to another list."""

    def weight(self) -> Any:
        self.seen.append(1.0)
        return 0.5 if self.is_late and len([0.0] + self.seen) > 10 else 1.0  # noqa: RUF005


class ReadByNumPy(Counted):
    """The same, read by NumPy."""

    def weight(self) -> Any:
        self.seen.append(1.0)
        return 0.5 if self.is_late and np.size(self.seen) > 9 else 1.0


class CopiedSet(Counted):
    """A count of steps, in a set that is copied."""

    def make_counter(self) -> Any:
        return set()

    def weight(self) -> Any:
        self.seen.add(f"{self.current_epoch} {self.global_step}")
        return 0.5 if self.is_late and len(set(self.seen)) > 9 else 1.0


class FilledAndRead(Counted):
    """A tensor that a step fills late, before it reads its list."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filled = torch.ones(())

    def weight(self) -> Any:
        self.seen.append(1.0)
        if not self.is_late:
            return 1.0
        self.filled.mul_(0.9)
        return self.filled / len(self.seen)


class Counter(Counted):
    """A Counter."""

    def make_counter(self) -> Any:
        return collections.Counter()

    def weight(self) -> Any:
        self.seen["steps"] += 1
        return 0.5 if self.seen["steps"] > 9 else 1.0


class OrderedCounter(Counter):
    """An ordered dictionary, whose oldest item moves behind the others and which is read in order."""

    def make_counter(self) -> Any:
        return collections.OrderedDict(steps=0, other=0)

    def weight(self) -> Any:
        self.seen["steps"] += 1
        self.seen.move_to_end(next(iter(self.seen)))
        expected = "other" if self.seen["steps"] % 2 else "steps"
        return 0.5 if self.seen["steps"] > 9 and next(iter(self.seen)) == expected else 1.0


class PrivateSlot:
    """An object without a dictionary, whose attribute is private."""

    __slots__ = ("__count",)

    def __init__(self) -> None:
        self.__count = 0

    def counted(self) -> int:
        """Return how often it was asked."""
        self.__count += 1
        return self.__count


class CountedPrivately(Counter):
    """A count in a private attribute."""

    def make_counter(self) -> Any:
        return PrivateSlot()

    def weight(self) -> Any:
        return 0.5 if self.seen.counted() > 9 else 1.0


class ArrayOfSteps(Counter):
    """An array that a step changes in place."""

    def make_counter(self) -> Any:
        return np.zeros(1)

    def weight(self) -> Any:
        self.seen[0] += 1
        return 0.5 if self.seen[0] > 9 else 1.0


class Meter:
    """Counts, as helpers of training scripts do."""

    def __init__(self) -> None:
        self.count, self.sum = 0, 0.0

    def update(self, value: Any) -> None:
        """Add a value."""
        self.count += 1
        self.sum += value


class Metered(Counter):
    """Objects in a dictionary, which steps change."""

    def make_counter(self) -> Any:
        return {"loss": Meter()}

    def weight(self) -> Any:
        self.seen["loss"].update(1.0)
        return 0.5 if self.seen["loss"].count > 9 else 1.0


class Slotted:
    """An object without a dictionary."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 1.0


class ObjectOfHook(OnceChanged):
    """An object that a hook changes in place."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = Slotted()

    def set_weight(self, value: float) -> None:
        self.settings.value = value

    def weight(self) -> Any:
        return self.settings.value


class ComputedName(OnceChanged):
    """A number with a name that code computes."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind = "ght"
        self.wei_ght = 1.0

    def set_weight(self, value: float) -> None:
        setattr(self, f"wei_{self.kind}", value)

    def weight(self) -> Any:
        return getattr(self, f"wei_{self.kind}")


class OwnGenerator(SetByStep):
    """A number that a step draws late from a generator of the module."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.generator = np.random.default_rng(0)

    def weight(self) -> Any:
        return float(self.generator.random()) if self.is_late else 1.0


class OfRate(LitNet):
    """Takes another step at high learning rates."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.kind = self.choose(lr > 0.005)

    def choose(self, is_high: bool) -> Any:
        """Return what depends on the learning rate."""
        return is_high

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * (0.5 if self.kind in (True, "half") else 1.0)


class NameOfRate(OfRate):
    """A name."""

    def choose(self, is_high: bool) -> Any:
        return "half" if is_high else "whole"


class OptionOfRate(OfRate):
    """A number, or none."""

    def choose(self, is_high: bool) -> Any:
        return 1 if is_high else None


def weight_of(share: float) -> float:
    """Return the weight."""
    return share


class Half(float):
    """A half."""

    def __new__(cls) -> Half:
        """Return it."""
        return super().__new__(cls, 0.5)


class FunctionOfRate(OfRate):
    """A function with a value of its own."""

    def choose(self, is_high: bool) -> Any:
        factor = 0.5 if is_high else 1.0
        return lambda: factor

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return LitNet.training_step(self, batch, batch_idx) * self.kind()


class PartialOfRate(FunctionOfRate):
    """A function with an argument of its own."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.kind = functools.partial(weight_of, share=0.5 if lr > 0.005 else 1.0)


class ClassOfRate(FunctionOfRate):
    """A class, or a function."""

    def choose(self, is_high: bool) -> Any:
        return Half if is_high else lambda: 1.0


class MethodOfRate(FunctionOfRate):
    """A method."""

    def choose(self, is_high: bool) -> Any:
        return self.half if is_high else self.whole

    def half(self) -> float:
        """Return the weight."""
        return 0.5

    def whole(self) -> float:
        """Return the weight."""
        return 1.0


class SetAtSize(LitNet):
    """Sets an attribute at a batch of another size alone."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if len(batch[0]) < 16:
            self.see()
        return super().training_step(batch, batch_idx)

    def see(self) -> None:
        self.small = True


SMALL = 0


class GlobalAtSize(SetAtSize):
    """Counts batches of another size in the file."""

    def see(self) -> None:
        global SMALL
        SMALL += 1


class ClockAtSize(SetAtSize):
    """Reads the epoch at a batch of another size alone."""

    def see(self) -> None:
        assert self.current_epoch >= 0


EACH = (
    NumPyNumber, Array, Namespace, Function, Keys, OnceChanged, ByName, Hyperparameter, FilledByHook, FilledByStep,
    SetByStep, SetByCallback, NotANumber, Counted, Averaged, Stacked, ReadBeside, ReadByNumPy, CopiedSet,
    Counter, OrderedCounter, CountedPrivately,
    ArrayOfSteps, Metered, ObjectOfHook, ComputedName, HeldByMethod, HeldInUserDict, ReadByLayer,
    NamedAsHook,
)  # fmt: skip
