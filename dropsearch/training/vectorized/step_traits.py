"""Traits of a module's steps: side effects, as observed in one step of each kind, and overridden hooks."""

from __future__ import annotations

import collections
import copy
import dis
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import is_
from types import FunctionType
from typing import Any

from torch import Tensor, nn

from dropsearch._compat.lightning import is_lightning_class
from dropsearch._compat.torchmetrics import is_metric_or_collection
from dropsearch.training.logged_steps import EPOCH_HOOKS

BATCH_HOOKS = (
    "on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward",
    "on_before_optimizer_step", "on_train_batch_end", "on_validation_batch_start", "on_validation_batch_end",
)  # fmt: skip
"""Hooks of a step, which also run once per row, on the row's module."""

CONTAINERS = (list, dict, set, collections.deque)
MOST_ITEMS = 1000
"""Number of items up to which a container is searched for others."""

_LIGHTNING_OWN = (
    "_trainer", "_fabric", "_current_fx_name", "_metric_attributes", "_fabric_optimizers", "_jit_is_scripting",
)  # fmt: skip
_OF_RECURRENT_LAYERS = ("_flat_weights", "_flat_weight_refs")

Attribute = tuple[str, str]
"""Path of a submodule, and name of its attribute."""


@dataclass
class StepTraits:
    """Properties of steps that require work for each row outside of `vmap`."""

    metrics: tuple[str, ...] = ()
    """Paths of the outermost metric objects."""
    attributes: set[Attribute] = field(default_factory=set)
    """Attributes that a step overwrites or fills."""
    carried: set[Attribute] = field(default_factory=set)
    """Attributes that a step or a hook has changed, which later steps may read."""
    hooks: tuple[str, ...] = ()
    """Overridden hooks of `EPOCH_HOOKS` and `BATCH_HOOKS`."""
    uses_clock: bool = False
    """Whether a step reads the epoch or the step of its Trainer."""
    uses_batch_idx: bool = False
    fills_batch: bool = False
    """Whether a step changes tensors of its batch in place."""
    logs_beyond_means: bool = False
    """Whether a validation step logs anything except means of tensors over examples, or a training step anything except
    means and last values."""
    numbers: tuple[str, ...] = ()
    """Names of Python numbers logged by a training step: constants of a trial, which may differ between rows."""
    reads_values: bool = False
    """Whether a step converts a tensor to a number or a boolean."""
    functions: tuple[FunctionType, ...] = ()
    """Functions of torchmetrics that a step calls."""
    draws_in_python: bool = False
    """Whether a step draws from the generators of Python or NumPy."""
    sets_modes: bool = False
    """Whether the module overrides the methods that set modes."""
    has_callbacks: bool = False
    """Whether the Trainer's arguments hold callbacks."""
    has_plateau: bool = False
    """Whether a schedule monitors a metric."""
    logged: tuple[str, ...] = ()
    """Names logged in the validation step itself."""

    def needs_result(self, step: str) -> bool:
        """Return whether a hook receives the result of a step."""
        return f"on_{step.removesuffix('_step').replace('training', 'train')}_batch_end" in self.hooks

    def set_eval(self, module: Any) -> None:
        """Set the mode of a module for its validation steps."""
        module.on_validation_model_eval() if self.sets_modes else module.eval()

    @property
    def asks_rows(self) -> bool:
        """Whether a step runs under `RowReads`, which may split rows into groups."""
        return self.reads_values or bool(self.functions)

    @property
    def is_plain(self) -> bool:
        """Whether steps only compute a loss and log means."""
        return not (
            self.metrics
            or self.attributes
            or self.hooks
            or self.uses_clock
            or self.draws_in_python
            or self.uses_batch_idx
            or self.logs_beyond_means
            or self.asks_rows
            or self.has_callbacks
            or self.has_plateau
        )


def static_traits(module: Any) -> StepTraits:
    """Return the traits that follow from a module's class and submodules."""
    return StepTraits(
        metrics=tuple(metric_paths(module)),
        hooks=tuple(overridden(module, (*EPOCH_HOOKS, *BATCH_HOOKS))),
        sets_modes=any(overridden(module, ("on_validation_model_eval",))),
    )


def metric_paths(module: nn.Module, path: str = "") -> Iterator[str]:
    """Yield the paths of the outermost metric objects and collections."""
    for name, child in module.named_children():
        below = f"{path}.{name}" if path else name
        if is_metric_or_collection(child):
            yield below
        else:
            yield from metric_paths(child, below)


def overridden(module: Any, among: tuple[str, ...] | None = None) -> Iterator[str]:
    """Yield the names of Lightning's methods that a module's class overrides, unless both do nothing.

    `among` names the ones to look at, in this order; None for all public ones.
    """
    lightning = [base for base in type(module).__mro__ if is_lightning_class(base)]
    for name in among or dir(type(module)):
        if name.startswith("_"):
            continue
        member = inspect.getattr_static(type(module), name, None)
        inherited = next((base.__dict__[name] for base in lightning if name in base.__dict__), None)
        is_overridden = inherited is not None and member is not inherited and callable(inherited)
        if is_overridden and not (does_nothing(member) and does_nothing(inherited)):
            yield name


def does_nothing(function: Any) -> bool:
    """Return whether a function consists of `pass`, a docstring or `return None`."""
    code = getattr(function, "__code__", None)
    if code is None:
        return False
    instructions = list(dis.get_instructions(code))
    is_idle = all(
        each.opname in ("RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE", "RETURN_CONST") for each in instructions
    )
    return is_idle and all(each.argval is None for each in instructions if "CONST" in each.opname)


class Replaced(dict[int, Any]):
    """Replaced items of a list by index."""


class AttributeWatch:
    """A snapshot of a module's attributes, to find and undo the changes of a step; metric objects are left out."""

    def __init__(self, module: nn.Module) -> None:
        hidden = tuple(metric_paths(module))
        self._parts = {
            path: part
            for path, part in module.named_modules()
            if not any(path == metric or path.startswith(f"{metric}.") for metric in hidden)
        }
        self._values = {path: dict(vars(part)) for path, part in self._parts.items()}
        self._contents: dict[Attribute, Any] = {
            (path, name): copy.copy(value)
            for path, values in self._values.items()
            for name, value in values.items()
            if _is_own(name) and isinstance(value, CONTAINERS)
        }
        self._inner = {attribute: list(_inside(value)) for attribute, value in self._contents.items()}

    def changed(self) -> dict[Attribute, Any]:
        """Return overwritten attributes with their current values, and containers that grew."""
        found: dict[Attribute, Any] = {}
        for path, part in self._parts.items():
            for name, value in vars(part).items():
                if _is_own(name) and (
                    value is not self._values[path].get(name, self) or self._has_other_contents((path, name), value)
                ):
                    found[path, name] = value
        return found

    def _has_other_contents(self, attribute: Attribute, value: Any) -> bool:
        before = self._contents.get(attribute)
        if before is None or value is not self._values[attribute[0]].get(attribute[1]):
            return before is not None
        return not _is_same(before, value) or self._has_inner_changes(attribute)

    def _has_inner_changes(self, attribute: Attribute) -> bool:
        return not all(_is_same(before, inner) for inner, before in self._inner[attribute])

    def grown(self, attribute: Attribute, value: Any) -> Any:
        """Return new items of a container, or `Replaced`; None for other values, a string for unsupported changes."""
        before = self._contents.get(attribute)
        if before is None or value is not self._values[attribute[0]].get(attribute[1]):
            return None
        if self._has_inner_changes(attribute):
            return "by changing a container that it holds"
        if isinstance(value, dict):
            return {key: item for key, item in value.items() if key not in before or before[key] is not item}
        if isinstance(value, set):
            return value - before
        items = list(value)
        if len(items) >= len(before) and all(map(is_, before, items)):
            return items[len(before) :]
        refused = "otherwise than by appending to it or replacing items"
        if len(items) != len(before):
            return refused
        replaced = Replaced(
            {at: item for at, (old, item) in enumerate(zip(before, items, strict=True)) if old is not item}
        )
        is_moved = any(item is old for item in replaced.values() for old in before if isinstance(old, Tensor))
        return refused if is_moved else replaced

    def put_back(self) -> None:
        """Undo all changes."""
        for attribute in self.changed():
            path, name = attribute
            if name not in self._values[path]:
                del vars(self._parts[path])[name]
                continue
            vars(self._parts[path])[name] = value = self._values[path][name]
            if attribute in self._contents:
                fill(value, self._contents[attribute])
                for inner, before in self._inner[attribute]:
                    fill(inner, before)


def _inside(container: Any, depth: int = 3) -> Iterator[tuple[Any, Any]]:
    """Yield the containers in a container that is not large, each with a copy of it."""
    if depth and len(container) <= MOST_ITEMS:
        for each in container.values() if isinstance(container, dict) else container:
            if isinstance(each, CONTAINERS):
                yield each, copy.copy(each)
                yield from _inside(each, depth - 1)


def _is_same(before: Any, now: Any) -> bool:
    if isinstance(now, set):
        return before == now  # a copy may have another order
    same = len(before) == len(now) and all(map(is_, before, now))
    return same and not (isinstance(now, dict) and any(before[key] is not now[key] for key in before))


def fill(container: Any, contents: Any) -> None:
    """Replace the contents of a list, dict, set or deque."""
    container.clear()
    container.extend(contents) if hasattr(container, "extend") else container.update(contents)


def _is_own(name: str) -> bool:
    return name not in _BOOKKEEPING


_BOOKKEEPING = frozenset({"training", "log", "log_dict", *vars(nn.Module()), *_LIGHTNING_OWN, *_OF_RECURRENT_LAYERS})
