"""The state of NumPy's global generator, read and put back by its memory.

`numpy.random.get_state` and `set_state` convert 624 numbers one by one, which takes as long as reading a small batch.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

_SIZE = 625 * 4
"""Bytes of a Mersenne Twister: 624 numbers, and the position among them."""
_global: Any = np.random  # whose type stubs lack what sets its generator
_seed, _normal = np.random.seed, np.random.standard_normal


def numpy_state() -> tuple[Any, ...]:
    """Return the state of the global generator, to compare it with another."""
    bits = _global.get_bit_generator()
    return _read(bits) if _is_known(type(bits)) else (repr(np.random.get_state(legacy=False)),)


def numpy_kept() -> Callable[[], None]:
    """Return a function that puts back the present state of the global generator."""
    bits = _global.get_bit_generator()
    if _is_known(type(bits)):
        return partial(_write, bits, *_read(bits))
    state = np.random.get_state(legacy=False)

    def put_back() -> None:
        _global.set_bit_generator(bits)
        np.random.set_state(state)

    return put_back


def _read(bits: Any) -> tuple[bytes, float | None]:
    """Return the memory of a generator, and the second number of a normal pair if it is still to be returned."""
    memory = ctypes.string_at(bits.ctypes.state_address, _SIZE)
    number = _normal()
    pair = number if ctypes.string_at(bits.ctypes.state_address, _SIZE) == memory else None
    _write(bits, memory, pair)
    return memory, pair


def _write(bits: Any, memory: bytes, pair: float | None) -> None:
    if _global.get_bit_generator() is not bits:
        _global.set_bit_generator(bits)
    _seed(0)  # forgets the number of a pair, which is beside this memory
    ctypes.memmove(bits.ctypes.state_address, memory, _SIZE)
    if pair is not None:
        np.random.set_state({**np.random.get_state(legacy=False), "has_gauss": 1, "gauss": pair})


@cache
def _is_known(kind: type) -> bool:
    """Return whether the memory of generators of a class is as expected."""
    if kind is not np.random.MT19937:
        return False
    bits: Any = kind(1)
    found, state = np.frombuffer(ctypes.string_at(bits.ctypes.state_address, _SIZE), np.uint32), bits.state["state"]
    return bool((found[:-1] == state["key"]).all() and found[-1] == state["pos"])
