"""Checks that two trials trained vectorized equal the same trials trained sequentially."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dropsearch._compat.torch_modes import backward, is_unpickling, without_modes
from dropsearch.core.contents import tensors_in
from dropsearch.core.errors import UnsupportedError
from dropsearch.core.records import Site, TrialSpec
from dropsearch.core.user_errors import place_of_class, place_of_error
from dropsearch.training.planning.trial_proof import trials_difference
from dropsearch.training.protocols import DataSource, TrainerSettings
from dropsearch.training.sequential import ModuleFactory
from dropsearch.training.vectorized.watched_parts import attributes, watched_parts

_VMAP_ERRORS = {
    "random operation": "the module draws random numbers from torch in a way that no trial's seed gives",
    "data-dependent control flow": "the module branches on the value of a tensor (data-dependent control flow)",
    ".item()": "the module converts a tensor to a number (`.item()`)",
    "dynamic shape": "the module creates tensors whose shape depends on values, for example with a boolean mask",
    "extra_args": "a step fills a tensor that all trials share with values that differ between them",
}


def check_equivalence(
    make_module: ModuleFactory, data: DataSource, settings: TrainerSettings, specs: tuple[TrialSpec, TrialSpec]
) -> str:
    """Return why two trials of an arm differ between vectorized and sequential training; empty if they do not.

    They are trained on a few batches in float64 (see `trials_difference`). They have different rates; batches and
    masks are those that they would have in a search.
    """
    if settings.precision not in ("32-true", "64-true", "bf16-mixed"):
        return f"trainer.precision={settings.precision} is not supported by vectorized training"
    try:
        with held_in_double(without_modes(make_module)) as make_module, DoublePrecision():
            return trials_difference(make_module, data, settings, specs)
    except UnsupportedError as error:
        return f"{error}{place_of_error(error)}"
    except Exception as error:  # user code can fail in any way under vmap; it is then trained sequentially
        return _explain(error) + (place_of_error(error) or place_of_class(type(make_module(specs[0]))))


def _explain(error: Exception) -> str:
    """Return an explanation of a vmap error if there is one, otherwise the error itself, in one line."""
    message = " ".join(str(error).split())
    if re.search(r"\bdouble\b", message, re.IGNORECASE):
        return f"the module does not run in float64, in which trials are compared ({message[:200]})"
    explanations = (text for part, text in _VMAP_ERRORS.items() if "vmap" in message and part in message)
    return next(explanations, f"{type(error).__name__}: {message[:200]}")


def equivalence_specs(arm: str, sites: tuple[Site, ...], dropping: bool) -> tuple[TrialSpec, TrialSpec]:
    """Return two trials of an arm whose rates differ between trials and sites; no rates if not `dropping`."""
    names = [site.name for site in sites if site.controllable] if dropping else []
    first = {name: 0.1 + 0.5 * index / max(len(names), 1) for index, name in enumerate(names)}
    second = {name: 0.6 - rate / 2 for name, rate in first.items()}
    return (
        TrialSpec(arm, 0, 11, first, lr=1e-3, weight_decay=1e-4),
        TrialSpec(arm, 1, 12, second, lr=1e-2, weight_decay=1e-3),
    )


class DoublePrecision(TorchFunctionMode):
    """Replaces casts to float32 by casts to float64: `x.float()`, `x.to(torch.float32)` and `dtype` arguments.

    Many modules compute softmax, norms or the loss in float32 regardless of the dtype of their weights. In a float64
    module this would round the compared values or fail with a dtype mismatch.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is Tensor.backward:
            with self:  # a mode is off while it handles a call, but a backward pass may recompute a part of the forward
                return backward(*args, **(kwargs or {}))
        if func is torch.empty and is_unpickling(sys._getframe(1)):  # a batch from a worker process
            return func(*args, **(kwargs or {}))
        options = {name: _to_float64(value) for name, value in (kwargs or {}).items()}
        return (Tensor.double if func is Tensor.float else func)(*map(_to_float64, args), **options)


def _to_float64(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


@contextmanager
def held_in_double(make_module: ModuleFactory) -> Iterator[ModuleFactory]:
    """Yield a factory whose modules hold plain tensors of float32 in float64, as `double()` does with parameters.

    At the end the tensors are as before, since modules may share them.
    """
    before: list[tuple[Tensor, Tensor]] = []

    def make(spec: TrialSpec) -> LightningModule:
        module = make_module(spec)
        held = [value for part in watched_parts(module).values() for value in attributes(part).values()]
        for tensor in (each for value in held for each in tensors_in(value)):
            if tensor.dtype is torch.float32 and not isinstance(tensor, nn.Parameter):
                before.append((tensor, tensor.data))
                tensor.data = tensor.data.double()
        return module

    try:
        yield make
    finally:
        for tensor, values in before:
            tensor.data = values
