"""Sharing of frozen parts that are equal in all trials: one tensor, and one product for the inputs of all rows.

An example is a pretrained backbone with a new head or LoRA. Its parameters do not train and its buffers do not change,
so copies for each row would waste memory and time.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dropsearch._compat.torch_modules import buffers_of


class NotHeldOnceError(Exception):
    """A shared part differs in a trial, or a trial has changed it."""


def frozen_tensors(module: nn.Module, changing: Iterable[str] = ()) -> dict[str, Tensor]:
    """Return the parameters of a module that do not train, and its buffers but those that steps change, by name."""
    frozen = {name: parameter.detach() for name, parameter in module.named_parameters() if not parameter.requires_grad}
    unchanged = {name: buffer for name, buffer in module.named_buffers() if name not in set(changing)}
    return {**frozen, **unchanged}


@contextmanager
def noting_changed_buffers(module: nn.Module) -> Iterator[set[str]]:
    """Yield a set that contains the names of changed buffers when the context ends."""
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    changed: set[str] = set()
    yield changed
    after = dict(module.named_buffers())
    changed |= {name for name, value in before.items() if name not in after or not torch.equal(value, after[name])}


def use_frozen(module: nn.Module, first: nn.Module, names: Container[str] | None = None) -> None:
    """Replace equal frozen parameters of a module by those of another one, to free memory: all, or some by name."""
    theirs = {
        name: value
        for name, value in first.named_parameters()
        if not value.requires_grad and (names is None or name in names)
    }
    for name, parameter in module.named_parameters():
        frozen = theirs.get(name)
        if frozen is None or parameter.requires_grad or frozen.device != parameter.device:
            continue
        if same(frozen.detach(), parameter.detach()):
            parameter.data = frozen.detach()


def equal_in_all(modules: Sequence[nn.Module], changing: Iterable[str] = ()) -> dict[str, Tensor]:
    """Return tensors of the first of several modules that are equal in all and that no step changes, by name."""
    first, *others = modules
    found = frozen_tensors(first, changing) if others else {}
    for other in others:
        theirs = frozen_tensors(other, changing)
        found = {name: value for name, value in found.items() if name in theirs and same(value, theirs[name])}
    return found


def same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors have the same memory or values."""
    if one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride():
        return True
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other.to(one.device))


def use(module: nn.Module, shared: Mapping[str, Tensor]) -> None:
    """Replace tensors of a module by shared ones; raise `NotHeldOnceError` if the values differ."""
    parameters, buffers = dict(module.named_parameters()), dict(module.named_buffers())
    for name, value in shared.items():
        own: Any = parameters.get(name, buffers.get(name))
        if own is None or (name in parameters and own.requires_grad) or not same(value, own.detach().to(value.dtype)):
            raise NotHeldOnceError(f"{name} differs between trials")
        if name in parameters:
            own.data = value
        else:
            path, _, leaf = name.rpartition(".")
            buffers_of(module.get_submodule(path))[leaf] = value


def fingerprint(tensors: Iterable[Tensor]) -> Tensor:
    """Return a checksum of tensors: two sums of each, float64 `[tensors, 2]`."""
    sums = []
    for tensor in tensors:
        parts = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        # masks may contain infinities
        values = parts.detach().double().flatten().nan_to_num(nan=1.5, posinf=2.5, neginf=-3.5)
        sums.append(torch.stack([values.sum(), (values * values).sum()]))
    return torch.stack(sums) if sums else torch.zeros(0, 2)
