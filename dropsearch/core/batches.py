"""Traversal of batches: tuples, named tuples, lists, mappings, dataclasses and objects with `.to()`."""

from __future__ import annotations

import collections
import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from dropsearch.core.errors import UnsupportedError

Rebuild = Callable[[list[Any]], Any]
"""Builds a container of the same type from new parts, in the same order."""


def parts_of(value: Any) -> tuple[list[Any], Rebuild] | None:
    """Return the parts of a container and a function that rebuilds it from new parts; None if it is no container."""
    if type(value) is tuple or type(value) is list:
        return list(value), type(value)
    if isinstance(value, PackedSequence):
        return [value.data], lambda parts: value._replace(data=parts[0]).to(parts[0].device)
    if isinstance(value, Mapping):
        return list(value.values()), lambda parts: _mapping_like(value, dict(zip(value, parts, strict=True)))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(value), lambda parts: type(value)(*parts)
    if isinstance(value, collections.deque):
        return list(value), lambda parts: type(value)(parts, value.maxlen)
    if isinstance(value, list):  # a class of a user has attributes and a constructor of its own
        return list(value), lambda parts: _list_like(value, parts)
    if isinstance(value, tuple):
        return list(value), type(value)
    names = _attributes(value)
    if names is None:
        return None
    return [getattr(value, name) for name in names], lambda parts: _object_like(value, names, parts)


def replaced(value: Any, replace: Callable[[Any], Any]) -> Any:
    """Return a value with parts replaced, from the outside in: a container that `replace` returns is taken apart."""
    changed = replace(value)
    found = None if changed is not value or isinstance(value, Tensor) else parts_of(value)
    return changed if found is None else found[1]([replaced(part, replace) for part in found[0]])


def mapped(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a batch with `change` applied to each tensor; other leaves stay the same objects."""
    return replaced(batch, lambda part: change(part) if isinstance(part, Tensor) else part)


def combined(values: Sequence[Any], combine: Callable[[list[Any]], Any]) -> Any:
    """Return a value of the structure that all values have, with leaves combined from theirs.

    Raises `ValueError` if values have other numbers of parts, or mappings other keys.
    """
    found = None if isinstance(values[0], Tensor) else parts_of(values[0])
    if found is None:
        return combine(list(values))
    if isinstance(values[0], Mapping) and any(list(value) != list(values[0]) for value in values):
        raise ValueError("mappings with different keys have no common structure")
    columns = zip(*(parts_of(value)[0] for value in values), strict=True)  # type: ignore[index]
    return found[1]([combined(column, combine) for column in columns])


def cast(batch: Any, dtype: torch.dtype) -> Any:
    """Return a batch with its floating-point tensors converted to `dtype`."""
    return mapped(batch, lambda part: part.to(dtype) if part.is_floating_point() else part)


def leaves(batch: Any, above: frozenset[int] = frozenset()) -> Iterator[Any]:
    """Yield the leaves of a batch in order: tensors, numbers, strings, None. A container in itself has none.

    `above` are the identities of the containers that hold it.
    """
    found = None if isinstance(batch, Tensor) else parts_of(batch)
    if found is None:
        yield batch
    elif id(batch) not in above:
        above |= {id(batch)}
        for part in found[0]:
            yield from leaves(part, above)


def is_packed(batch: Any) -> bool:
    """Return whether a batch contains a packed sequence, whose tensor does not stack examples."""
    found = None if isinstance(batch, Tensor) else parts_of(batch)
    return isinstance(batch, PackedSequence) or (found is not None and any(map(is_packed, found[0])))


def tensors(batch: Any) -> Iterator[Tensor]:
    """Yield the tensors in a batch or an output, in order."""
    return (leaf for leaf in leaves(batch) if isinstance(leaf, Tensor))


def examples_in(batch: Any) -> int | None:
    """Return the batch size: the length of the first tensor with at least one dimension, or None without one."""
    return next((int(x.shape[0]) for x in tensors(batch) if x.dim()), None)


class BatchForm:
    """The structure of a batch: builds batches from tensors.

    Leaves that are no tensors are those of the prototype, and so are tensors without dimensions unless `with_scalars`.
    """

    def __init__(self, prototype: Any, *, with_scalars: bool = False) -> None:
        self._prototype, self._with_scalars = prototype, with_scalars
        kind = type(prototype)
        is_flat = kind in (tuple, list) and all(isinstance(part, Tensor) and part.dim() for part in prototype)
        self._flat = kind if is_flat else None

    def build(self, examples: Sequence[Tensor]) -> Any:
        """Return a batch with these tensors, in the order of `tensors` or of `examples_of`."""
        if self._flat is not None:
            return self._flat(examples)
        following = iter(examples)
        takes = lambda tensor: self._with_scalars or tensor.dim()  # noqa: E731
        return mapped(self._prototype, lambda tensor: next(following) if takes(tensor) else tensor)


TUPLE = BatchForm(())
"""The form of a plain tuple with any number of tensors."""


def examples_of(batch: Any) -> tuple[Tensor, ...]:
    """Return the tensors of a batch that have at least one dimension, in order."""
    return tuple(tensor for tensor in tensors(batch) if tensor.dim())


def form_of(batches: Sequence[Any], *, with_scalars: bool = False) -> BatchForm:
    """Return the form shared by batches. Non-tensor leaves that differ between batches become `Unreadable`.

    Raises `UnsupportedError` if their numbers of leaves differ, or tensors that are not built.
    """
    first, *others = [list(leaves(batch)) for batch in batches]
    if any(len(other) != len(first) for other in others):
        raise UnsupportedError("the training batches consist of different numbers of parts")
    common = iter([_common(column, with_scalars) for column in zip(first, *others, strict=True)])
    return BatchForm(_with_leaves(batches[0], common), with_scalars=with_scalars)


def _common(column: tuple[Any, ...], with_scalars: bool) -> Any:
    """Return the leaf that represents a column of leaves, one per batch."""
    leaf = column[0]
    if isinstance(leaf, Tensor) and (with_scalars or leaf.dim()):
        return leaf
    if all(same(leaf, other) for other in column[1:]):
        return leaf
    if isinstance(leaf, Tensor):
        raise UnsupportedError("a training batch contains a tensor without dimensions that differs between batches")
    return Unreadable(f"a {type(leaf).__name__}")


def _with_leaves(batch: Any, following: Iterator[Any]) -> Any:
    found = None if isinstance(batch, Tensor) else parts_of(batch)
    return next(following) if found is None else found[1]([_with_leaves(part, following) for part in found[0]])


class Unreadable:
    """Placeholder for a non-tensor leaf that differs between batches; any use raises an error that names its kind."""

    def __init__(self, kind: str) -> None:
        object.__setattr__(self, "_kind", kind)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # copy, pickle and inspect look up optional attributes
            raise AttributeError(name)
        raise self._error()

    def _error(self) -> UnsupportedError:
        return UnsupportedError(
            f"a step uses {self._kind} of its batch, which differs between batches and is not a tensor"
        )


def _refuse(self: Any, *_: Any) -> Any:
    raise self._error()


_USES = "len iter getitem contains bool int float index str eq ne lt le gt ge add radd sub mul rmul truediv call array"
for _name in _USES.split():
    setattr(Unreadable, f"__{_name}__", _refuse)
Unreadable.__hash__ = object.__hash__  # type: ignore[method-assign]


def _attributes(value: Any) -> list[str] | None:
    """Return the attributes that are parts of an object: a dataclass, or an object with tensors and `.to()`."""
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
        object.__setattr__(result, name, part)  # also works for frozen dataclasses
    return result


def _list_like(value: list[Any], parts: list[Any]) -> Any:
    result = copy.copy(value)
    result[:] = parts
    return result


def _mapping_like(value: Mapping[Any, Any], changed: dict[Any, Any]) -> Any:
    if type(value) is dict:
        return changed
    result: Any = copy.copy(value)
    try:
        for key, part in changed.items():
            result[key] = part
    except TypeError:  # the mapping is read-only
        return changed
    return result


def same(one: Any, other: Any) -> bool:
    """Return whether two leaves are equal tensors, arrays or plain values, or the same object; NaN equals NaN."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return isinstance(one, Tensor) and isinstance(other, Tensor) and _equal(one, other)
    if one is other or type(one) is not type(other):
        return one is other
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    is_plain = isinstance(one, str | bytes | int | float | complex | np.generic | set)
    return is_plain and bool(one == other or (one != one and other != other))


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype or one.layout != other.layout:
        return False
    if one.layout is not torch.strided:
        return _equal(one.to_dense(), other.to_dense())
    other = other.to(one.device)
    return torch.equal(one.nan_to_num(), other.nan_to_num()) if one.is_floating_point() else torch.equal(one, other)
