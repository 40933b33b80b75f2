"""Traits of a module's steps: side effects, as observed in one step of each kind, and overridden hooks."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

from torch import nn

from dropsearch._compat.lightning import is_lightning_class
from dropsearch._compat.torchmetrics import is_metric_or_collection
from dropsearch.training.logged_steps import EPOCH_HOOKS

BATCH_HOOKS = (
    "on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward",
    "on_before_optimizer_step", "on_train_batch_end", "on_validation_batch_start", "on_validation_batch_end",
)  # fmt: skip
"""Hooks of a step, which also run once per row, on the row's module."""

Path = tuple[str | int, ...]
"""Path of a part of a module: that of a submodule, then attributes and numbers of items that lead to an object."""
Attribute = tuple[Path, str]
"""Path of a part of a module, and name of its attribute."""


class NotLoadedError(Exception):
    """A step reads what is each row's own and not loaded for the step, which is to be taken again with it."""

    def __init__(self, attribute: Attribute) -> None:
        super().__init__(f"a step reads {attribute[1]}, which is not loaded")
        self.attribute = attribute


@dataclass
class StepTraits:
    """Properties of steps that require work for each row outside of `vmap`."""

    metrics: tuple[str, ...] = ()
    """Paths of the outermost metric objects."""
    attributes: set[Attribute] = field(default_factory=set)
    """Attributes that a step overwrites or fills."""
    carried: set[Attribute] = field(default_factory=set)
    """Attributes that a step or a hook has changed, which later steps may read, or that differ between trials."""
    hooks: tuple[str, ...] = ()
    """Overridden hooks of `EPOCH_HOOKS` and `BATCH_HOOKS`."""
    uses_clock: bool = False
    """Whether a step reads the epoch or the step of its Trainer."""
    reads_rates: bool = False
    """Whether a step reads options of its optimizer, such as the learning rate."""
    uses_batch_idx: bool = False
    fills_batch: bool = False
    """Whether a step changes tensors of its batch in place."""
    logs_beyond_means: bool = False
    """Whether a validation step logs anything except means of tensors over examples, or a training step anything except
    means and last values."""
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
        beside = (self.metrics, self.attributes, self.carried, self.hooks, self.uses_clock, self.reads_rates)
        more = (self.draws_in_python, self.uses_batch_idx, self.logs_beyond_means, self.asks_rows)
        return not any((*beside, *more, self.has_callbacks, self.has_plateau))


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
