"""What data sets hold in memory or name as files, to detect changes without reading their examples."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Sampler

from dropsearch._compat.lightning import is_lightning_class
from dropsearch.datasets.batch_digest import digest

WHOLE = 2**28
"""Largest array or file whose whole content counts, in bytes; of a larger one a sample of as many rows as `SAMPLE`."""
SAMPLE = 4096
_CHANGING = ("cache", "memo", "buffer", "history", "log")
"""Parts of attribute names of what changes while a data set is read."""

_NO_DATA = (nn.Module, Sampler, torch.Generator, type)


def held(*datasets: Any) -> str:
    """Return the sha256 of the tensors, arrays, lists and files that data sets and their attributes hold.

    Single numbers and what looks like a cache are left out, since reading may change them.
    """
    found, known = hashlib.sha256(), dict[int, Any]()
    for dataset in datasets:
        with suppress(Exception):  # objects of users may raise anything; what they hold does not count then
            for part in _parts("", dataset, known):
                found.update(part.encode())
    return found.hexdigest()


def _parts(name: str, value: Any, known: dict[int, Any]) -> Iterator[str]:
    """Yield a text for each part of a value; `known` holds what was visited, which keeps its identity."""
    if isinstance(value, str | Path):
        if _is_file(value):
            yield f"{name}:{_content(value)}"
        return
    if id(value) in known or isinstance(value, _NO_DATA) or callable(value):
        return
    if any(map(is_lightning_class, type(value).__mro__)):  # a data module or a Trainer, which lead everywhere
        return
    known[id(value)] = value
    if hasattr(value, "to_numpy"):  # a table of pandas
        value = value.to_numpy()
    if isinstance(value, list | tuple) and value and {*map(type, value)} <= {int, float}:
        value = np.asarray(value, dtype=float)
    if isinstance(value, Tensor | np.ndarray):
        yield f"{name}:{value.dtype}{tuple(value.shape)}{digest(_sample(value))}"
    elif isinstance(value, list | tuple | range):
        some = value[:: max(len(value) // SAMPLE, 1)]
        yield f"{name}:{len(value)}{digest([_plain(each) for each in some])}"
        for place, part in enumerate(some):
            if not isinstance(part, _PLAIN):
                yield from _parts(f"{name}/{place}", part, known)
    else:
        for key, part in _attributes(value):
            yield from _parts(f"{name}/{key}", part, known)


def _attributes(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from ((key, part) for key, part in value.items() if not isinstance(key, int))
        return
    given = getattr(value, "__dict__", {})
    yield from ((key, part) for key, part in sorted(given.items()) if not any(each in key for each in _CHANGING))


_PLAIN = (str, bytes, int, float, complex, Path)


def _plain(value: Any) -> Any:
    """Return a plain value, the size of a file in place of its path, or None."""
    if isinstance(value, str | Path) and _is_file(value):
        return os.path.getsize(value)
    return value if isinstance(value, _PLAIN) and not isinstance(value, Path) else None


def _is_file(value: str | Path) -> bool:
    """Return whether a text is the path of a file; its place is no part of the data."""
    return 0 < len(str(value)) <= SAMPLE and os.sep in str(value) and os.path.isfile(value)


def _content(path: str | Path) -> str:
    """Return the size of a file and the sha256 of its content."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        content = file.read(WHOLE if size <= WHOLE else SAMPLE)
    return f"{size}{hashlib.sha256(content).hexdigest()}"


def _sample(value: Any) -> Any:
    size = value.nbytes if isinstance(value, np.ndarray) else value.numel() * value.element_size()
    if size <= WHOLE or not value.ndim:
        return value
    return value[:: max(len(value) // SAMPLE, 1)]
