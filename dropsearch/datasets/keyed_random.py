"""Seeding of random generators as a function of the trial's seed, the epoch and the batch number."""

from __future__ import annotations

import functools
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dropsearch.core.global_state import generators_kept
from dropsearch.core.seeds import derived_seed

DEEPEST, MOST = 6, 2000
"""Limits of the depth and width of the search for generators in objects."""
LONGEST = 64
"""Maximum length of a list or mapping to search."""
LIBRARIES = ("torch", "numpy", "random", "lightning", "pytorch_lightning", "builtins", "dropsearch", "pandas")
_OWN = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


class BatchKey(NamedTuple):
    """Identifies a batch of a trial and determines its random numbers."""

    seed: int
    purpose: str
    epoch: int
    batch: int


def reseed(key: BatchKey, step: str, generators: Sequence[Any]) -> None:
    """Seed the global generators of Python, NumPy and torch's CPU, and the given ones, for one batch.

    `step` is the one that draws: ``order`` or ``examples``. `GeneratorsKept` restores their states.
    """
    seed = derived_seed(key.seed, "batch", key.purpose, key.epoch, key.batch, step)
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    kept = _KEPT.get()
    for index, generator in enumerate(generators):
        if kept is not None:
            kept.keep(generator)
        _reseed(generator, derived_seed(seed, "generator", index))


def _reseed(generator: Any, seed: int) -> None:
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif isinstance(generator, np.random.Generator):
        bits = generator.bit_generator
        bits.state = type(bits)(seed).state  # type: ignore[call-arg]
    else:
        generator.seed(seed)


class GeneratorsKept:
    """Restores the states of generators when the context exits.

    These are the global generators of Python, NumPy and torch's CPU, and all that `reseed` seeds within the context.
    """

    def __enter__(self) -> None:
        self._put_back: dict[int, Callable[[], None]] = {0: generators_kept()}
        self._token = _KEPT.set(self)

    def keep(self, generator: Any) -> None:
        """Remember the state of a generator, unless already done."""
        if id(generator) not in self._put_back:
            self._put_back[id(generator)] = _putting_back(generator)

    def __exit__(self, *_: object) -> None:
        _KEPT.reset(self._token)
        for put_back in self._put_back.values():
            put_back()


_KEPT: ContextVar[GeneratorsKept | None] = ContextVar("kept", default=None)


def _putting_back(generator: Any) -> Callable[[], None]:
    """Return a function that restores the present state of a generator."""
    if isinstance(generator, np.random.Generator):
        bits = generator.bit_generator
        return functools.partial(setattr, bits, "state", bits.state)
    if isinstance(generator, random.Random):
        return functools.partial(generator.setstate, generator.getstate())
    return functools.partial(generator.set_state, generator.get_state())


def generators_in(*roots: Any) -> list[Any]:
    """Return generators in attributes, closures and small containers of objects, and in the modules of their code."""
    found: dict[int, Any] = {}
    seen: dict[int, Any] = {}
    modules: set[str] = set()
    level = list(roots)
    for _ in range(DEEPEST):
        following: list[Any] = []
        for value in level:
            if id(value) in seen or len(seen) > MOST:
                continue
            seen[id(value)] = value  # keeps a reference, so that its id is not reused
            if _is_own(value):
                found[id(value)] = value
            elif not isinstance(value, Tensor | np.ndarray | str | bytes | int | float | type | None):
                following += _parts(value)
                modules.add(str(getattr(value, "__module__", "")))
        level = following
    for name in sorted(modules):
        found.update((id(each), each) for each in _of_module(name))
    return [each for each in found.values() if each is not torch.default_generator]


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.values() if len(value) <= LONGEST else ()
        return
    if isinstance(value, list | tuple | set | frozenset):
        yield from value if len(value) <= LONGEST else ()
        return
    if isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    yield getattr(value, "__self__", None)
    for cell in getattr(value, "__closure__", None) or ():
        try:
            yield cell.cell_contents
        except ValueError:  # an empty closure cell
            continue
    if hasattr(value, "__dict__"):
        yield from vars(value).values()


def _of_module(name: str) -> Iterator[Any]:
    """Yield the generators among the global variables of a user's Python module."""
    if name in sys.modules and name.partition(".")[0] not in LIBRARIES:
        yield from (each for each in vars(sys.modules[name]).values() if _is_own(each))


def _is_own(value: Any) -> bool:
    return isinstance(value, _OWN) and not isinstance(value, random.SystemRandom)  # has no seed and no state
