"""Digests of nested batches, and of what data sets hold in memory or name as files, to detect changes."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Sampler

from dropsearch._compat.lightning import is_lightning_class

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


MOST_BYTES = 2**28
"""Bytes of arrays and files that are read of a data set; of what exceeds them, a sample."""
MOST_PARTS = 10_000
"""Parts of a data set that are looked at."""
SAMPLE = 4096
"""Elements of a sample, spread over the whole; bytes of each of `BLOCKS` blocks of a file."""
BLOCKS = 64
LONGEST = 100_000
"""Entries of a list that are looked at, spread over the whole."""
_CHANGING = {"cache", "cached", "memo", "buffer", "history", "log", "logs"}
"""Words in the names of attributes that change while a data set is read."""
_NO_DATA = (nn.Module, Sampler, torch.Generator, type)
_SINGLE = (str, bytes, int, float, complex, Path)
_known: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
"""The digest of each data set when it was first seen, since some fill themselves while they are read."""


def held(*datasets: Any) -> str:
    """Return the sha256 of the tensors, arrays, lists and files that data sets and their attributes hold.

    Single numbers and what looks like a cache are left out, since reading may change them; and what raises an error.
    """
    return digest([_remembered(dataset) for dataset in datasets])


def _remembered(dataset: Any) -> str:
    try:
        known = _known.get(dataset)
    except TypeError:  # it cannot be hashed or referred to weakly, such as a list
        return _Holdings().digest_of(dataset)
    if known is None:
        known = _known[dataset] = _Holdings().digest_of(dataset)
    return known


class _Holdings:
    """Reads what a data set holds, within limits."""

    def __init__(self) -> None:
        self._found = hashlib.sha256()
        self._bytes, self._parts = MOST_BYTES, MOST_PARTS
        self._seen: dict[int, Any] = {}
        """What was visited, which keeps its identity."""

    def digest_of(self, dataset: Any) -> str:
        self._visit("", dataset)
        return self._found.hexdigest()

    def _visit(self, name: str, value: Any) -> None:
        self._parts -= 1
        if self._parts >= 0:
            with suppress(Exception):  # objects of users may raise anything; what does is left out
                self._add(name, value)

    def _add(self, name: str, value: Any) -> None:
        if isinstance(value, str | Path):
            if _is_file(value):
                self._note(name, self._content(value))
            return
        if id(value) in self._seen or isinstance(value, _NO_DATA) or callable(value):
            return
        if any(map(is_lightning_class, type(value).__mro__)):  # a data module or a Trainer, which lead everywhere
            return
        self._seen[id(value)] = value
        if hasattr(value, "to_numpy"):  # a table of pandas
            value = value.to_numpy()
        if isinstance(value, np.ndarray) and value.dtype.kind in "OSU":
            self._note(name, value.shape)
            value = value.flat[_spread(value.size, LONGEST)].tolist()
        if isinstance(value, list | tuple) and value and {*map(type, value)} <= {int, float}:
            value = np.asarray(value, dtype=float)
        if isinstance(value, Tensor | np.ndarray):
            self._note(name, str(value.dtype), tuple(value.shape), self._elements(value))
        elif isinstance(value, list | tuple | range):
            some = [value[index] for index in _spread(len(value), LONGEST)]
            self._note(name, len(value), [_plain(each) for each in some])
            for place, part in enumerate(some):
                if not isinstance(part, _SINGLE):
                    self._visit(f"{name}/{place}", part)
        else:
            for key, part in _attributes(value):
                self._visit(f"{name}/{key}", part)

    def _note(self, *found: Any) -> None:
        self._found.update(digest(found).encode())

    def _elements(self, value: Tensor | np.ndarray) -> Any:
        """Return an array, or a sample of it that is spread over its elements, without copying the rest."""
        if self._affords(value.nbytes):
            return value
        count = value.numel() if isinstance(value, Tensor) else value.size
        places = _spread(count)
        if isinstance(value, Tensor):
            return torch.take(value, torch.from_numpy(places).to(value.device))
        return value.flat[places]

    def _content(self, path: str | Path) -> Any:
        """Return the size of a file and its content, or that of blocks spread over it."""
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            if self._affords(size):
                return size, file.read()
            blocks = []
            for block in range(BLOCKS):
                file.seek(block * (size - SAMPLE) // (BLOCKS - 1))
                blocks.append(file.read(SAMPLE))
            return size, blocks

    def _affords(self, size: int) -> bool:
        if size <= self._bytes:
            self._bytes -= size
            return True
        return False


def _spread(count: int, most: int = SAMPLE) -> np.ndarray:
    """Return at most `most` indices, spread over all, the first and the last included."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _attributes(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield what an object holds by name; a mapping that is no dict may read each of its values from a disk."""
    if isinstance(value, dict):
        yield from value.items()
        return
    for key, part in sorted(getattr(value, "__dict__", {}).items()):
        if _CHANGING.isdisjoint(key.lower().split("_")):
            yield key, part


def _plain(value: Any) -> Any:
    """Return a plain value, the size of a file in place of its path, or None."""
    if isinstance(value, str | Path) and _is_file(value):
        return os.path.getsize(value)
    return value if isinstance(value, _SINGLE) and not isinstance(value, Path) else None


def _is_file(value: str | Path) -> bool:
    """Return whether a text is the path of a file; its place is no part of the data."""
    return 0 < len(str(value)) <= SAMPLE and os.sep in str(value) and os.path.isfile(value)
