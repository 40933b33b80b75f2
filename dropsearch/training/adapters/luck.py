"""Which part of the luck of a trial does not vary with its seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from dropsearch.core.batches import tensors

SEED_ARGUMENTS = ("seed", "random_seed", "random_state")
"""The names by which constructors take a seed."""


def fixed_luck(first: nn.Module, second: nn.Module, loaders: tuple[Any, Any]) -> tuple[str, ...]:
    """Return what is the same under two seeds: ``initial weights``, ``initial weights of backbone``, ``batch order``.

    Args:
        first: A module as it is built under one seed.
        second: The same under another seed.
        loaders: The training batches under the two seeds.
    """
    return (*_weights(first, second), *(["batch order"] if _same_batch(*loaders) else []))


def notes(fixed: tuple[str, ...]) -> tuple[str, ...]:
    """Return a line for each part that does not vary, and what that means."""
    return tuple(
        f"the {part} does not vary with the seed, so differences between arms leave out that luck"
        if part == "batch order"
        else f"the {part} do not vary with the seed, so differences between arms leave out that luck"
        for part in fixed
    )


def _weights(first: nn.Module, second: nn.Module) -> Iterator[str]:
    others = dict(second.named_parameters())
    drawn = {name: a for name, a in first.named_parameters() if not is_lazy(a) and name in others and _is_drawn(a)}
    fixed = [name for name, a in drawn.items() if _equal(a, others[name])]
    if fixed and len(fixed) == len(drawn):
        yield "initial weights"
    elif fixed:
        varying = {name.partition(".")[0] for name in drawn if name not in fixed}
        parts = dict.fromkeys(_part(name, varying) for name in fixed)
        yield f"initial weights of {', '.join(parts)}"


def _part(name: str, varying: set[str]) -> str:
    """Return the largest part of the module that holds a weight and none that varies."""
    top = name.partition(".")[0]
    return name if top in varying else top


def _is_drawn(weight: nn.Parameter) -> bool:
    """Whether a weight looks drawn: biases of zero and scales of one are the same by intent."""
    return weight.numel() > 1 and not bool((weight == weight.flatten()[0]).all())


def _equal(a: nn.Parameter, b: nn.Parameter) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def _same_batch(one: Any, other: Any) -> bool:
    batches = [list(tensors(next(iter(_loader(each)), None))) for each in (one, other)]
    if not batches[0] or len(batches[0]) != len(batches[1]):
        return False
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(*batches, strict=True))


def _loader(given: Any) -> Any:
    """Return an iterable of batches; of several loaders, the first."""
    while isinstance(given, Mapping | list | tuple) and given:
        given = next(iter(given.values())) if isinstance(given, Mapping) else given[0]
    return given
