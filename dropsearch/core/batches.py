"""Batches of any form: tensors in tuples, named tuples, lists, mappings, dataclasses and packed sequences."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


def mapped(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a batch of the same form with each tensor changed; what is no tensor stays the same object."""
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, PackedSequence):
        changed: Any = batch._replace(data=change(batch.data))
        return changed.to(changed.data.device)
    if isinstance(batch, Mapping):
        changed = {key: mapped(value, change) for key, value in batch.items()}
        return changed if type(batch) is dict else _of_type(batch, changed)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(mapped(value, change) for value in batch))
    if isinstance(batch, list | tuple):
        return type(batch)(mapped(value, change) for value in batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        result = copy.copy(batch)
        for name in _fields(batch):
            object.__setattr__(result, name, mapped(getattr(batch, name), change))  # a frozen one too
        return result
    return batch


def tensors(batch: Any) -> Iterator[Tensor]:
    """Yield the tensors in a batch or an output, in order."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for each in batch.values():
            yield from tensors(each)
    elif isinstance(batch, list | tuple):
        for each in batch:
            yield from tensors(each)
    elif dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        for name in _fields(batch):
            yield from tensors(getattr(batch, name))


def examples_in(batch: Any) -> int | None:
    """Return how many examples a batch holds: the length of its first tensor with a dimension; None without one."""
    return next((int(x.shape[0]) for x in tensors(batch) if x.dim()), None)


def _fields(batch: Any) -> Iterator[str]:
    return (field.name for field in dataclasses.fields(batch) if hasattr(batch, field.name))


def _of_type(batch: Mapping[Any, Any], changed: dict[Any, Any]) -> Any:
    try:
        return type(batch)(changed)  # type: ignore[call-arg]
    except TypeError:
        return changed
