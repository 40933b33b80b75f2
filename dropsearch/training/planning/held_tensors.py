"""Tensors that modules hold as plain attributes, such as weights of classes, in double precision for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dropsearch.core.records import TrialSpec
from dropsearch.training.sequential import ModuleFactory
from dropsearch.training.vectorized.attribute_contents import tensors_in
from dropsearch.training.vectorized.watched_parts import assign, attributes, watched_parts


@contextmanager
def held_in_double(make_module: ModuleFactory) -> Iterator[ModuleFactory]:
    """Yield a factory whose modules hold plain tensors of float32 in float64, as `double()` does with parameters.

    At the end all attributes are as before, since modules may share the objects that have them.
    """
    undo: list[Callable[[], None]] = []
    memo: dict[int, tuple[Any, Any]] = {}  # of all modules: what they share stays shared

    def make(spec: TrialSpec) -> Any:
        module = make_module(spec)
        for part in watched_parts(module).values():
            for name, value in attributes(part).items():
                if (doubled := _double(value, memo)) is not value:
                    undo.append(lambda part=part, name=name, value=value: assign(part, name, value))
                    assign(part, name, doubled)
        return module

    try:
        yield make
    finally:
        for each in undo:
            each()


def _double(value: Any, memo: dict[int, tuple[Any, Any]]) -> Any:
    """Return a value with its tensors of float32 in float64; what is held twice stays one object.

    `memo` holds values and what replaces them, by id.
    """
    if isinstance(value, nn.Parameter) or all(tensor.dtype is not torch.float32 for tensor in tensors_in(value)):
        return value
    if id(value) not in memo:
        _convert(value, memo)
    return memo[id(value)][1]


def _convert(value: Any, memo: dict[int, tuple[Any, Any]]) -> None:
    """Note what replaces a value that holds tensors; lists and dictionaries before their parts, which may hold them."""
    if isinstance(value, Tensor):
        memo[id(value)] = value, value.detach().double()
    elif type(value) is tuple:
        memo[id(value)] = value, tuple(_double(each, memo) for each in value)
    elif type(value) is list:
        memo[id(value)] = value, (changed := [])
        changed += [_double(each, memo) for each in value]
    elif type(value) is dict:
        memo[id(value)] = value, (changed := {})
        changed |= {name: _double(each, memo) for name, each in value.items()}
    else:
        memo[id(value)] = value, value
