"""Setting the learning rate of a module's optimizers, and recording the one that they use."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from dropsearch.core.global_state import changed

_KEPT_IN_GROUPS = ("lr", "initial_lr", "max_lr", "min_lr")
"""Keys of a parameter group in units of the learning rate; schedules store values there."""
_KEPT_IN_SCHEDULES = ("base_lrs", "_last_lr", "max_lrs")


def reference(optimizers: list[Optimizer], setting: str) -> float:
    """Return the learning rate (before any schedule) or weight decay of the first group, or NaN."""
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        value = group.get("initial_lr", group.get("lr")) if setting == "lr" else group.get(setting)
        return math.nan if value is None else float(value)
    return math.nan


def with_learning_rate(configure: Callable[[], Any], lr: float) -> Any:
    """Return the result of a module's `configure_optimizers` with another learning rate.

    The first group gets `lr` and the others keep their ratio to it. The groups are scaled when they are created, so
    that schedules read the new value. A schedule with its own values (`OneCycleLR(max_lr=...)`) is scaled afterwards,
    so that its first value is `lr`.
    """
    with _MadeGroups(lr).watching() as made:
        answer = configure()
    found = optimizers_of(answer)
    factors = made.corrections(found)
    for scheduler in _schedulers(answer):
        _scale_schedule(scheduler, factors)
    for group in (group for optimizer in found for group in optimizer.param_groups):
        for name in _KEPT_IN_GROUPS:
            if name in group and factors[id(group)] != 1:
                group[name] = group[name] * factors[id(group)]
    return answer


class _MadeGroups:
    """Scales the learning rates of parameter groups when they are created."""

    def __init__(self, lr: float) -> None:
        self._lr = lr
        self._factor = math.nan
        """Original learning rate of the first group, once there is one."""
        self._given: dict[int, float] = {}

    @contextmanager
    def watching(self) -> Iterator[_MadeGroups]:
        add = Optimizer.add_param_group

        def add_param_group(optimizer: Optimizer, group: dict[str, Any]) -> None:
            add(optimizer, group)
            made = optimizer.param_groups[-1]
            if "lr" not in made:
                return
            if math.isnan(self._factor) and float(made["lr"]) > 0:
                self._factor = self._lr / float(made["lr"])
            if not math.isnan(self._factor):
                made["lr"] = made["lr"] * self._factor
                self._given[id(made)] = float(made["lr"])

        with changed(Optimizer, add_param_group=add_param_group):
            yield self

    def corrections(self, optimizers: list[Optimizer]) -> dict[int, float]:
        """Return the remaining factor of each group's learning rate: 1 if the group kept the given value."""
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        if not groups or "lr" not in groups[0]:
            return dict.fromkeys(map(id, groups), 1.0)
        kept = {id(group): self._kept(group) for group in groups}
        whole = self._factor if kept[id(groups[0])] else self._lr / reference(optimizers, "lr")
        return {name: (whole / self._factor if is_kept else whole) for name, is_kept in kept.items()}

    def _kept(self, group: dict[str, Any]) -> bool:
        value = group.get("initial_lr", group.get("lr"))
        given = self._given.get(id(group))
        return given is not None and value is not None and math.isclose(float(value), given, rel_tol=1e-9)


def _scale_schedule(scheduler: Any, factors: Mapping[int, float]) -> None:
    by_group = [factors.get(id(group), 1.0) for group in getattr(scheduler.optimizer, "param_groups", ())]
    for name in _KEPT_IN_SCHEDULES:
        values = getattr(scheduler, name, None)
        if isinstance(values, list) and len(values) == len(by_group):
            setattr(scheduler, name, [value * factor for value, factor in zip(values, by_group, strict=True)])


def optimizers_of(answer: Any) -> list[Optimizer]:
    """Return the optimizers in a result of `configure_optimizers`, in any of Lightning's forms."""
    return [part for part in _parts(answer) if isinstance(part, Optimizer)]


def _schedulers(answer: Any) -> Iterator[Any]:
    for part in _parts(answer):
        if (hasattr(part, "base_lrs") or hasattr(part, "_schedulers")) and hasattr(part, "optimizer"):
            yield part
            yield from _schedulers(list(getattr(part, "_schedulers", ())))


def _parts(answer: Any) -> Iterator[Any]:
    if isinstance(answer, Mapping):
        for value in answer.values():
            yield from _parts(value)
    elif isinstance(answer, list | tuple):
        for value in answer:
            yield from _parts(value)
    elif answer is not None:
        yield answer


class UsedSettings:
    """Learning rates and weight decays of optimizer steps."""

    def __init__(self, traced: int = 0) -> None:
        self._left = traced
        self._first: Optimizer | None = None
        self.lr: tuple[float, float] | None = None
        """Smallest and largest learning rate of the first group of the first optimizer that stepped."""
        self.steps: dict[str, list[tuple[float, ...]]] = {"lr": [], "weight_decay": []}
        """Values of all groups in each of the first `traced` optimizer steps, by setting."""

    def note(self, optimizer: Optimizer, *_: Any) -> None:
        """Record a step of an optimizer."""
        self._first = self._first or optimizer
        if optimizer is self._first and optimizer.param_groups and "lr" in optimizer.param_groups[0]:
            lr = float(optimizer.param_groups[0]["lr"])
            low, high = self.lr or (lr, lr)
            self.lr = min(low, lr), max(high, lr)
        if self._left > 0:
            self._left -= 1
            for setting, steps in self.steps.items():
                steps.append(tuple(float(group.get(setting, math.nan)) for group in optimizer.param_groups))


@contextmanager
def used_settings(traced: int = 0) -> Iterator[UsedSettings]:
    """Record the settings of all optimizer steps in this process while the context lasts."""
    used = UsedSettings(traced)
    handle = register_optimizer_step_post_hook(used.note)
    try:
        yield used
    finally:
        handle.remove()
