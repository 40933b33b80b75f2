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

    def make(spec: TrialSpec) -> Any:
        module = make_module(spec)
        memo: dict[int, tuple[Any, Any]] = {}
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
    """Return a value with its tensors of float32 in float64; what is held twice stays one object."""
    if id(value) not in memo:
        memo[id(value)] = value, _converted(value, memo)
    return memo[id(value)][1]


def _converted(value: Any, memo: dict[int, tuple[Any, Any]]) -> Any:
    if isinstance(value, nn.Parameter):
        return value
    if isinstance(value, Tensor):
        return value.detach().double() if value.dtype is torch.float32 else value
    kind = type(value)
    if kind not in (list, tuple, dict) or all(tensor.dtype is not torch.float32 for tensor in tensors_in(value)):
        return value
    if kind is dict:
        return {name: _double(each, memo) for name, each in value.items()}
    return kind(_double(each, memo) for each in value)
