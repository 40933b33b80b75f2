"""A user module's validation run aside, on a copy, so that what the module keeps for its own is not disturbed."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from dropsearch._compat.lightning import is_lightning_class, package_of
from dropsearch._compat.lightning_trainer import validation_beside
from dropsearch._compat.torch_modules import named_parts, parameters_of
from dropsearch._compat.torchmetrics import is_metric_or_collection, without_states
from dropsearch.core.batches import tensors
from dropsearch.core.contents import tensors_kept
from dropsearch.training.controlled_trial import hooks_of
from dropsearch.training.logged_steps import in_eval_mode

_HOOKS = {f"on_validation_{each}" for each in ("start", "epoch_start", "batch_start", "model_eval")}
"""Hooks that run before a validation step."""


class ValidationAside:
    """Runs a user module's validation on other batches than its own, with dropout off. There is one for each trial.

    Lightning itself validates a copy: the means, the stage and the hooks are its own. Modules gather outputs in lists
    and in metric objects between the steps of a validation: theirs must not see these batches. The copy shares the
    weights, and the metric objects with another state.
    """

    def __init__(self, batches: Any) -> None:
        self._batches = batches
        self._validate: Callable[[Any], dict[str, float]] | None = None

    def measure(
        self, module: Any, trainer: Any, controlled: Callable[[Any], AbstractContextManager[None]] = nullcontext
    ) -> dict[str, float]:
        """Return what the module logs, by name; empty where it cannot be run. The copy runs in `controlled`."""
        # Hooks may put other weights in place for a validation, and an error keeps them from putting these back.
        weights = [*module.parameters()] if _HOOKS & {*hooks_of(type(module))} else []
        try:
            with tensors_kept(weights), module_copy(module) as twin, warnings.catch_warnings(), controlled(twin):
                warnings.simplefilter("ignore")  # said of the validation itself, where it matters
                if self._validate is None:
                    self._validate = validation_beside(package_of(module), trainer, self._batches)
                with in_eval_mode(module):  # functions that it holds may read its mode in the place of the copy's
                    return self._validate(twin)
        except Exception:  # user code, run where it was not meant to: there is no such curve then
            return {}


_ATOMS = frozenset(
    {
        int, float, complex, bool, str, bytes, type(None), type, range, FunctionType, BuiltinFunctionType,
        torch.dtype, torch.device, torch.Size,
    }
)  # fmt: skip
_NOT_COPIED = ("_trainer", "_fabric", "_compiled_call_impl")


@contextmanager
def module_copy(module: nn.Module) -> Iterator[Any]:
    """Copy a module; the copy has the weights and the metric objects of the module themselves.

    The metric objects have empty states in this context, and their own again at its end.
    """
    every = [part for _, part in named_parts(module)]
    memo: dict[int, Any] = {id(each): each for part in every for each in parameters_of(part).values()}
    with _metrics_aside(every, memo):
        parts = [each for each in every if id(each) not in memo and _is_plain(type(each))]
        memo.update({id(each): type(each).__new__(type(each)) for each in parts})
        for part in reversed(parts):  # a compiled module is copied by its constructor, which asks its inner module
            held = {name: None if name in _NOT_COPIED else value for name, value in vars(part).items()}
            vars(memo[id(part)]).update({name: _copied(value, memo) for name, value in held.items()})
        yield _copied(module, memo)


@contextmanager
def _metrics_aside(parts: Sequence[nn.Module], memo: dict[int, Any]) -> Iterator[None]:
    """Give the metrics among the parts of a module empty states within the context; enter them as their own copies."""
    outermost, kept = [], []
    for metric in parts:
        if id(metric) not in memo and is_metric_or_collection(metric):
            inner = [part for _, part in named_parts(metric)]
            memo.update({id(each): each for each in inner})
            kept += [(each, dict(vars(each))) for each in inner]
            outermost.append(metric)
    try:
        for part, held in kept:
            vars(part).update({name: _copied(value, memo) for name, value in without_states(part, held).items()})
        for metric in outermost:
            metric.reset()
        yield
    finally:
        for part, held in kept:
            vars(part).clear()
            vars(part).update(held)


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
    memo.update({id(each): each.detach().clone() for each in tensors(value) if each.grad_fn is not None})
    return copy.deepcopy(value, memo)
