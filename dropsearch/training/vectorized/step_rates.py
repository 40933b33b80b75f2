"""What a step may ask of its optimizer and schedules: options of the parameter groups, such as the learning rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from dropsearch.core.errors import UnsupportedError
from dropsearch.training.vectorized.step_traits import Attribute

RATES: Attribute = ("", "optimizers()")
"""Stands for the options of optimizers and schedules among the attributes of a row."""

Rates = dict[str, Any]


def rates_of(trainer: Any) -> Rates:
    """Return the options of the parameter groups, and the last learning rates of each schedule, of a row's Trainer."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    return {
        "groups": [{name: value for name, value in group.items() if name != "params"} for group in groups],
        "last": [list(config.scheduler.get_last_lr()) for config in trainer.lr_scheduler_configs],
    }


class StepOptimizer:
    """The optimizer inside a step of several rows; `read` returns the rates."""

    def __init__(self, read: Callable[[], Rates]) -> None:
        self._read = read

    @property
    def __class__(self) -> type[Any]:  # type: ignore[override]  # code asks for its type
        return Optimizer

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The options of each group, without its parameters."""
        return [_Options(group) for group in self._read()["groups"]]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _of_rows(f"reads optimizer.{name}")


class StepSchedule:
    """A schedule inside a step of several rows; `read` returns the rates."""

    def __init__(self, read: Callable[[], Rates], index: int) -> None:
        self._read, self._index = read, index

    @property
    def scheduler(self) -> StepSchedule:
        """The schedule, as Lightning's configuration of it has it."""
        return self

    def get_last_lr(self) -> list[Any]:
        """Return the learning rate of each group."""
        return self._read()["last"][self._index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _of_rows(f"reads scheduler.{name}")


class _Options(dict[str, Any]):
    """Options that a step reads and does not change, without the parameters."""

    def __missing__(self, name: str) -> Any:
        raise _of_rows(f"reads {name} of a parameter group")

    def get(self, name: str, default: Any = None) -> Any:
        """Return an option, or the default if there is none of the name."""
        return self[name] if name == "params" else super().get(name, default)

    def __setitem__(self, name: str, value: Any) -> None:
        raise _of_rows(f"sets {name} of a parameter group")

    def _refused(self, *_: Any, **__: Any) -> Any:
        raise _of_rows("changes a parameter group")

    __ior__ = __delitem__ = update = setdefault = pop = popitem = clear = _refused  # type: ignore[assignment]


def _of_rows(what: str) -> UnsupportedError:
    return UnsupportedError(f"a step {what}, which differs between trials")
