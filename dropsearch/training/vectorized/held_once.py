"""Parts that no trial changes and that are equal in all: one tensor for all rows, and one product for all inputs.

A pretrained backbone under a new head, or under LoRA, is such a part. Its parameters do not train and its buffers do
not change, so that a copy for each row would cost memory and time for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dropsearch._compat.torch_modules import buffers_of


class NotHeldOnceError(Exception):
    """A part that all rows share differs in a trial, or a trial has changed it."""


def frozen_tensors(module: nn.Module, changing: Iterable[str] = ()) -> dict[str, Tensor]:
    """Return the parameters of a module that do not train, and its buffers, by name.

    Args:
        module: Any module.
        changing: Buffers that a training step changes, which are left out.
    """
    frozen = {name: parameter.detach() for name, parameter in module.named_parameters() if not parameter.requires_grad}
    unchanged = {name: buffer for name, buffer in module.named_buffers() if name not in set(changing)}
    return {**frozen, **unchanged}


@contextmanager
def noting_changed_buffers(module: nn.Module) -> Iterator[set[str]]:
    """Yield a set that holds, when the context ends, the names of the buffers that changed in it."""
    before = {name: buffer.clone() for name, buffer in module.named_buffers()}
    changed: set[str] = set()
    yield changed
    after = dict(module.named_buffers())
    changed |= {name for name, value in before.items() if name not in after or not torch.equal(value, after[name])}


def use_frozen(module: nn.Module, first: nn.Module) -> None:
    """Let a module use the frozen parameters of another one where its own are equal, so that they are freed."""
    theirs = {name: value for name, value in first.named_parameters() if not value.requires_grad}
    for name, parameter in module.named_parameters():
        frozen = theirs.get(name)
        if frozen is None or parameter.requires_grad or frozen.device != parameter.device:
            continue
        if same(frozen.detach(), parameter.detach()):
            parameter.data = frozen.detach()


def equal_in_all(modules: Sequence[nn.Module], changing: Iterable[str] = ()) -> dict[str, Tensor]:
    """Return the tensors of the first module that do not change and that all the modules have; none of a single one.

    Args:
        modules: Modules of one shape.
        changing: Buffers that a training step changes.
    """
    first, *others = modules
    found = frozen_tensors(first, changing) if others else {}
    for other in others:
        theirs = frozen_tensors(other, changing)
        found = {name: value for name, value in found.items() if name in theirs and same(value, theirs[name])}
    return found


def same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors have the same values, or the same memory."""
    if one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride():
        return True
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other.to(one.device))


def use(module: nn.Module, shared: Mapping[str, Tensor]) -> None:
    """Let a module use shared tensors in the place of its own, which have the same values.

    Raises:
        NotHeldOnceError: They have other values.
    """
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
    """Return numbers that change where a tensor does: two sums of each, float64 `[tensors, 2]`."""
    sums = []
    for tensor in tensors:
        parts = torch.view_as_real(tensor) if tensor.is_complex() else tensor
        values = parts.detach().double().flatten().nan_to_num(nan=1.5, posinf=2.5, neginf=-3.5)  # masks hold infinities
        sums.append(torch.stack([values.sum(), (values * values).sum()]))
    return torch.stack(sums) if sums else torch.zeros(0, 2)
