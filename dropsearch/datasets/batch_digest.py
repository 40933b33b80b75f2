"""A digest of nested batches, used to detect that a data set has changed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

PLACES = ("dir", "directory", "file", "folder", "path", "root", "num_workers")
"""Name endings of arguments that describe the location or loading of data, not its content."""
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def digest(*values: Any) -> str:
    """Return the sha256 of all tensors, arrays and plain values in nested containers, dataclasses and objects."""
    found = hashlib.sha256()
    for value in values:
        for leaf in _leaves(value, frozenset()):
            found.update(leaf)
    return found.hexdigest()


def arguments_of(module: Any) -> dict[str, Any]:
    """Return the arguments stored by `save_hyperparameters`, except those that describe locations."""
    noted = getattr(module, "hparams", None)
    if not isinstance(noted, Mapping):
        return {}
    named = {str(name): value for name, value in sorted(noted.items(), key=lambda item: str(item[0]))}
    return {
        name: value for name, value in named.items() if name.rpartition("_")[2] not in PLACES and name not in PLACES
    }


def _leaves(value: Any, above: frozenset[int]) -> Iterator[bytes]:
    """Yield the leaves of a value with their paths; references to enclosing objects are skipped."""
    if isinstance(value, Tensor):
        yield f"{tuple(value.shape)}{value.dtype}".encode()
        yield _content(value)
        return
    if isinstance(value, np.ndarray) and value.dtype != object:
        yield f"{value.shape}{value.dtype}".encode()
        yield np.ascontiguousarray(value).tobytes()
        return
    if isinstance(value, _PLAIN):
        yield repr(value).encode()
        return
    if id(value) in above:
        return
    for name, part in _parts(value):
        yield f"/{name}:".encode()
        yield from _leaves(part, above | {id(value)})


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, list | tuple | np.ndarray):
        yield from enumerate(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((each.name, getattr(value, each.name)) for each in dataclasses.fields(value))
    else:
        yield "class", f"{type(value).__module__}.{type(value).__qualname__}"
        yield from sorted(vars(value).items()) if hasattr(value, "__dict__") and not callable(value) else ()


def _content(tensor: Tensor) -> bytes:
    tensor = tensor.detach().cpu()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.int_repr()
    return tensor.resolve_conj().contiguous().flatten().view(torch.uint8).numpy().tobytes()
