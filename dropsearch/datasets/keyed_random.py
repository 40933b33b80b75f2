"""Random numbers of batches: a function of a trial's seed, the epoch and the number of the batch."""

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

from dropsearch.core.seeds import derived_seed

DEEPEST, MOST = 6, 2000
"""How far and how widely objects are searched for generators."""
LONGEST = 64
"""Longest list or mapping that is searched."""
LIBRARIES = ("torch", "numpy", "random", "lightning", "pytorch_lightning", "builtins", "dropsearch", "pandas")
_OWN = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


class BatchKey(NamedTuple):
    """Which batch of which trial: what its random numbers are made of."""

    seed: int
    """The trial's."""
    purpose: str
    """What the batches are for, as in ``train``."""
    epoch: int
    batch: int


def reseed(key: BatchKey, step: str, generators: Sequence[Any]) -> None:
    """Seed the global generators of Python, NumPy and torch's CPU, and the given ones, for one batch.

    Within `GeneratorsKept` all of them get their states back.

    Args:
        key: The batch.
        step: What is drawn: its ``order`` or its ``examples``.
        generators: Generators that the loader has of its own.
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
        self._states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
        self._put_back: dict[int, Callable[[], None]] = {}
        self._token = _KEPT.set(self)

    def keep(self, generator: Any) -> None:
        """Let a generator get its present state back, unless it is kept already."""
        if id(generator) not in self._put_back:
            self._put_back[id(generator)] = _putting_back(generator)

    def __exit__(self, *_: object) -> None:
        _KEPT.reset(self._token)
        for put_back in self._put_back.values():
            put_back()
        python, numpy, state = self._states
        random.setstate(python)
        np.random.set_state(numpy)
        torch.default_generator.set_state(state)


_KEPT: ContextVar[GeneratorsKept | None] = ContextVar("kept", default=None)


def _putting_back(generator: Any) -> Callable[[], None]:
    """Return what gives a generator, which it holds, its present state."""
    if isinstance(generator, np.random.Generator):
        bits = generator.bit_generator
        return functools.partial(setattr, bits, "state", bits.state)
    if isinstance(generator, random.Random):
        return functools.partial(generator.setstate, generator.getstate())
    return functools.partial(generator.set_state, generator.get_state())


def generators_in(*roots: Any) -> list[Any]:
    """Return the generators that objects hold: in attributes, closures, small containers, and modules of their code."""
    found: dict[int, Any] = {}
    seen: dict[int, Any] = {}
    modules: set[str] = set()
    level = list(roots)
    for _ in range(DEEPEST):
        following: list[Any] = []
        for value in level:
            if id(value) in seen or len(seen) > MOST:
                continue
            seen[id(value)] = value  # held, so that no other object gets its address
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
        except ValueError:  # it is empty
            continue
    if hasattr(value, "__dict__"):
        yield from vars(value).values()


def _of_module(name: str) -> Iterator[Any]:
    """Yield the generators that a module of the user's code holds as its global variables."""
    if name in sys.modules and name.partition(".")[0] not in LIBRARIES:
        yield from (each for each in vars(sys.modules[name]).values() if _is_own(each))


def _is_own(value: Any) -> bool:
    return isinstance(value, _OWN) and not isinstance(value, random.SystemRandom)  # it has no seed and no state
