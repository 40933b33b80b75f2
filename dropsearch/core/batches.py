"""Batches of any form: one walk through tuples, named tuples, lists, mappings, dataclasses and objects with `.to()`."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from dropsearch.core.errors import UnsupportedError

Rebuild = Callable[[list[Any]], Any]
"""Builds a container like another one from its parts, in their order."""


def parts_of(value: Any) -> tuple[list[Any], Rebuild] | None:
    """Return the parts of a container and what builds one like it from other parts; None for anything else."""
    if type(value) is tuple or type(value) is list:
        return list(value), type(value)
    if isinstance(value, PackedSequence):
        return [value.data], lambda parts: value._replace(data=parts[0]).to(parts[0].device)
    if isinstance(value, Mapping):
        return list(value.values()), lambda parts: _mapping_like(value, dict(zip(value, parts, strict=True)))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(value), lambda parts: type(value)(*parts)
    if isinstance(value, list | tuple):
        return list(value), type(value)
    names = _attributes(value)
    return (
        None if names is None else ([getattr(value, name) for name in names], lambda p: _object_like(value, names, p))
    )


def mapped(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a batch of the same form with each tensor changed; what is no tensor stays the same object."""
    if isinstance(batch, Tensor):
        return change(batch)
    found = parts_of(batch)
    if found is None:
        return batch
    parts, rebuild = found
    return rebuild([mapped(part, change) for part in parts])


def leaves(batch: Any) -> Iterator[Any]:
    """Yield what a batch consists of and is no container, in order: tensors, numbers, texts, None."""
    found = None if isinstance(batch, Tensor) else parts_of(batch)
    if found is None:
        yield batch
        return
    for part in found[0]:
        yield from leaves(part)


def is_packed(batch: Any) -> bool:
    """Return whether a batch holds a packed sequence, whose tensor is no stack of examples."""
    found = None if isinstance(batch, Tensor) else parts_of(batch)
    return isinstance(batch, PackedSequence) or (found is not None and any(map(is_packed, found[0])))


def tensors(batch: Any) -> Iterator[Tensor]:
    """Yield the tensors in a batch or an output, in order."""
    return (leaf for leaf in leaves(batch) if isinstance(leaf, Tensor))


def examples_in(batch: Any) -> int | None:
    """Return how many examples a batch holds: the length of its first tensor with a dimension; None without one."""
    return next((int(x.shape[0]) for x in tensors(batch) if x.dim()), None)


class BatchForm:
    """The form of a batch without its examples: builds batches from tensors, `[batch, ...]` each.

    Args:
        prototype: A batch of this form. What it holds beside tensors with a dimension is the same in each batch.
    """

    def __init__(self, prototype: Any) -> None:
        self._prototype = prototype
        kind = type(prototype)
        is_flat = kind in (tuple, list) and all(isinstance(part, Tensor) and part.dim() for part in prototype)
        self._flat = kind if is_flat else None

    def build(self, examples: Sequence[Tensor]) -> Any:
        """Return a batch of these tensors, in the order of `examples_of`."""
        if self._flat is not None:
            return self._flat(examples)
        following = iter(examples)
        return mapped(self._prototype, lambda tensor: next(following) if tensor.dim() else tensor)


TUPLE = BatchForm(())
"""Placeholder form of a plain tuple of any number of tensors."""


def examples_of(batch: Any) -> tuple[Tensor, ...]:
    """Return the tensors of a batch that have a dimension, in order."""
    return tuple(tensor for tensor in tensors(batch) if tensor.dim())


def form_of(batches: Sequence[Any]) -> BatchForm:
    """Return the form that batches share. What is no tensor and differs between them is `Unreadable` in it.

    Raises:
        UnsupportedError: The batches consist of different numbers of parts, or differ in a tensor without dimensions.
    """
    first, *others = [list(leaves(batch)) for batch in batches]
    if any(len(other) != len(first) for other in others):
        raise UnsupportedError("the training batches consist of different numbers of parts")
    parts = [_common(column) for column in zip(first, *others, strict=True)]
    following = iter(parts)
    return BatchForm(_with_leaves(batches[0], following))


class StackedForm:
    """The form of a batch without its tensors: builds batches from all tensors of one, in their order.

    Args:
        prototype: A batch of this form.
    """

    def __init__(self, prototype: Any) -> None:
        self._prototype = prototype

    def build(self, examples: Sequence[Tensor]) -> Any:
        """Return a batch of these tensors, in the order of `tensors`."""
        following = iter(examples)
        return mapped(self._prototype, lambda _: next(following))


def stacked_form(batches: Sequence[Any]) -> StackedForm:
    """Return the form of batches whose tensors are stacked. What else differs between them is `Unreadable` in it."""
    first, *others = [list(leaves(batch)) for batch in batches]
    parts = [
        leaf if isinstance(leaf, Tensor) or all(same(leaf, other) for other in more) else Unreadable(_named(leaf))
        for leaf, *more in zip(first, *others, strict=True)
    ]
    return StackedForm(_with_leaves(batches[0], iter(parts)))


def _named(leaf: Any) -> str:
    return f"a {type(leaf).__name__}"


def _common(column: tuple[Any, ...]) -> Any:
    """Return what stands for one leaf of all batches."""
    leaf = column[0]
    if isinstance(leaf, Tensor) and leaf.dim():
        return leaf
    if all(same(leaf, other) for other in column[1:]):
        return leaf
    if isinstance(leaf, Tensor):
        raise UnsupportedError("a training batch holds a tensor without dimensions that differs between batches")
    return Unreadable(_named(leaf))


def _with_leaves(batch: Any, following: Iterator[Any]) -> Any:
    found = None if isinstance(batch, Tensor) else parts_of(batch)
    return next(following) if found is None else found[1]([_with_leaves(part, following) for part in found[0]])


class Unreadable:
    """Stands in a batch for what differs between batches and is no tensor; any use of it raises an error.

    Args:
        kind: What stood there, in words.
    """

    def __init__(self, kind: str) -> None:
        object.__setattr__(self, "_kind", kind)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copies, pickles and signatures ask for what they may miss
            raise AttributeError(name)
        raise self._error()

    def _error(self) -> UnsupportedError:
        return UnsupportedError(
            f"a step uses {self._kind} in its batch, which differs between batches and is no tensor"
        )


def _refuse(self: Any, *_: Any) -> Any:
    raise self._error()


_USES = "len iter getitem contains bool int float index str eq ne lt le gt ge add radd sub mul rmul truediv call array"
for _name in _USES.split():
    setattr(Unreadable, f"__{_name}__", _refuse)
Unreadable.__hash__ = object.__hash__  # type: ignore[method-assign]


def _attributes(value: Any) -> list[str] | None:
    """Return the attributes that are the parts of an object: a dataclass, or what has tensors and `.to()`."""
    if isinstance(value, type | nn.Module | Tensor):
        return None
    if dataclasses.is_dataclass(value):
        return [field.name for field in dataclasses.fields(value) if hasattr(value, field.name)]
    if callable(getattr(type(value), "to", None)) and hasattr(value, "__dict__"):
        return list(vars(value))
    return None


def _object_like(value: Any, names: list[str], parts: list[Any]) -> Any:
    result = copy.copy(value)
    for name, part in zip(names, parts, strict=True):
        object.__setattr__(result, name, part)  # a frozen dataclass too
    return result


def _mapping_like(value: Mapping[Any, Any], changed: dict[Any, Any]) -> Any:
    if type(value) is dict:
        return changed
    result: Any = copy.copy(value)
    try:
        for key, part in changed.items():
            result[key] = part
    except TypeError:  # it cannot be written to
        return changed
    return result


def same(one: Any, other: Any) -> bool:
    """Return whether two leaves are the same: equal tensors, equal plain values, or one object."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and _equal(one, other)
    if one is other:
        return True
    return type(one) is type(other) and isinstance(one, str | bytes | int | float | complex) and one == other


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(one.nan_to_num(), other.nan_to_num()) if one.is_floating_point() else torch.equal(one, other)
