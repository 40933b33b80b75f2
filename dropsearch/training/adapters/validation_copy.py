"""A user module's validation run aside, on a copy, so that what the module keeps for its own is not disturbed."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from dropsearch._compat.lightning import forget_metric_names, is_lightning_class, package_of
from dropsearch._compat.lightning_validation import validation_beside
from dropsearch._compat.torchmetrics import is_metric_or_collection
from dropsearch.core.batches import tensors
from dropsearch.training.controlled_trial import hooks_of

_HOOKS = {f"on_validation_{each}" for each in ("start", "epoch_start", "batch_start", "model_eval")}
"""Hooks that run before a validation step."""


class ValidationAside:
    """Runs a user module's validation on other batches than its own, with dropout off. There is one for each trial.

    Lightning itself validates a copy: the means, the stage and the hooks are its own. Modules gather outputs in lists
    and in metric objects between the steps of a validation: theirs must not see these batches. The copy shares the
    weights.

    Args:
        batches: An iterable of batches, or a list of them.
    """

    def __init__(self, batches: Any) -> None:
        self._batches, self._copies = batches, ModuleCopies()
        self._validate: Callable[[Any], dict[str, float]] | None = None

    def measure(
        self, module: Any, trainer: Any, controlled: Callable[[Any], AbstractContextManager[None]] = nullcontext
    ) -> dict[str, float]:
        """Return what the module logs, by name; empty where it cannot be run like this.

        The Trainer is the one that trains it, in each call. `controlled` returns the context in which a copy is
        validated.
        """
        # Hooks may put other weights in place for a validation, and an error keeps them from putting these back.
        weights = [each.detach().clone() for each in module.parameters()] if _HOOKS & {*hooks_of(type(module))} else []
        try:
            twin = self._copies.make(module)
            with warnings.catch_warnings(), controlled(twin):
                warnings.simplefilter("ignore")  # said of the validation itself, where it matters
                if self._validate is None:
                    self._validate = validation_beside(package_of(module), trainer, self._batches)
                return self._validate(twin)
        except Exception:  # user code, run where it was not meant to: there is no such curve then
            with torch.no_grad():
                for parameter, kept in zip(module.parameters(), weights, strict=bool(weights)):
                    parameter.copy_(kept)
            return {}


_VALUES = frozenset((int, float, complex, bool, str, bytes, type(None)))
_ATOMS = _VALUES | {type, range, FunctionType, BuiltinFunctionType, torch.dtype, torch.device, torch.Size}
_NOT_COPIED = ("_trainer", "_fabric", "_compiled_call_impl")


class ModuleCopies:
    """Makes copies of one module. Metric objects are copied once, and reset in each further copy of the module."""

    def __init__(self) -> None:
        self._metrics: dict[int, tuple[nn.Module, nn.Module]] = {}
        """By identity, each metric with its copy."""

    def make(self, module: nn.Module) -> Any:
        """Return a copy of a module that has the module's weights themselves and metrics without state."""
        memo: dict[int, Any] = {id(each): each for each in module.parameters()}
        self._with_metrics(module, memo)
        parts = [each for each in module.modules() if id(each) not in memo and _is_plain(type(each))]
        memo.update({id(each): type(each).__new__(type(each)) for each in parts})
        for part in parts:
            held = {name: None if name in _NOT_COPIED else value for name, value in vars(part).items()}
            vars(memo[id(part)]).update({name: _copied(value, memo) for name, value in held.items()})
        twin = _copied(module, memo)
        forget_metric_names(twin)
        return twin

    def _with_metrics(self, module: nn.Module, memo: dict[int, Any]) -> None:
        """Enter the module's metrics with their copies."""
        for each in module.modules():
            if id(each) in memo or not is_metric_or_collection(each):
                continue
            if id(each) not in self._metrics:
                self._metrics[id(each)] = each, copy.deepcopy(each, {**memo, **_of_a_graph(each.modules())})
            twin: Any = self._metrics[id(each)][1]
            for part, other in zip(each.modules(), twin.modules(), strict=True):
                memo[id(part)] = other
                _update(other, part, memo)
            twin.reset()


def _update(twin: nn.Module, part: nn.Module, memo: dict[int, Any]) -> None:
    """Give the copy of a metric what may have changed in the metric beside its state."""
    public = ((name, value) for name, value in vars(part).items() if not name.startswith("_"))
    vars(twin).update({name: value for name, value in public if type(value) in _VALUES})
    for held in ("_parameters", "_buffers"):
        vars(twin)[held].update({name: _copied(value, memo) for name, value in vars(part)[held].items()})


def _of_a_graph(holders: Iterable[Any]) -> dict[int, Tensor]:
    """Return copies, by identity, of tensors that belong to a graph, as a metric may keep the loss."""
    held = (value for each in holders for value in tensors(vars(each) if isinstance(each, nn.Module) else each))
    return {id(value): value.detach().clone() for value in held if value.grad_fn is not None}


@cache
def _is_plain(kind: type) -> bool:
    """Return whether objects of a class are copied by copying their attributes."""
    getstate: Any = getattr(kind, "__getstate__", None)
    owner = next((base for base in kind.__mro__ if "__getstate__" in vars(base)), object)
    setstate = getattr(getattr(kind, "__setstate__", None), "__module__", "torch.")
    return (
        (owner is object or owner is nn.Module or is_lightning_class(owner) or getstate is None)
        and str(setstate).startswith("torch.")
        and kind.__reduce_ex__ is object.__reduce_ex__
        and kind.__new__ is object.__new__
        and not hasattr(kind, "__deepcopy__")
        and not issubclass(kind, torch.jit.ScriptModule)
    )


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """Return what `copy.deepcopy` does, a tensor of a graph without the graph."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if id(value) in memo:
        return memo[id(value)]
    if kind is dict or kind is OrderedDict:
        memo[id(value)] = made = kind()
        made.update({_copied(name, memo): _copied(each, memo) for name, each in value.items()})
        return made
    if kind is list:
        memo[id(value)] = listed = []
        listed.extend(_copied(each, memo) for each in value)
        return listed
    if kind is tuple:
        return tuple(_copied(each, memo) for each in value)
    if kind is Tensor and (not value.is_leaf or value.grad is None):
        memo[id(value)] = tensor = value.detach().clone().requires_grad_(value.requires_grad and value.is_leaf)
        return tensor
    memo.update(_of_a_graph([value]))
    return copy.deepcopy(value, memo)
