"""Detection of sources of variation that do not depend on a trial's seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from dropsearch.core.batches import same, tensors

SEED_ARGUMENTS = ("seed", "random_seed", "random_state")
"""Common names of seed arguments of constructors."""


def fixed_luck(first: nn.Module, second: nn.Module, loaders: tuple[Any, Any]) -> tuple[str, ...]:
    """Return what modules and loaders of two seeds have in common: (a part's) ``initial weights``, ``batch order``."""
    return (*_weights(first, second), *(["batch order"] if _same_batch(*loaders) else []))


def notes(fixed: tuple[str, ...]) -> tuple[str, ...]:
    """Return a line for each fixed source of variation, with its consequence."""
    return tuple(
        f"the {part} does not vary with the seed, so intervals of differences do not cover it"
        if part == "batch order"
        else f"the {part} do not vary with the seed, so intervals of differences do not cover them"
        for part in fixed
    )


def _weights(first: nn.Module, second: nn.Module) -> Iterator[str]:
    others = dict(second.named_parameters())
    drawn = {name: a for name, a in first.named_parameters() if not is_lazy(a) and name in others and _is_drawn(a)}
    fixed = [name for name, a in drawn.items() if same(a, others[name])]
    if fixed and len(fixed) == len(drawn):
        yield "initial weights"
    elif fixed:
        varying = {name.partition(".")[0] for name in drawn if name not in fixed}
        parts = dict.fromkeys(_part(name, varying) for name in fixed)
        yield f"initial weights of {', '.join(parts)}"


def _part(name: str, varying: set[str]) -> str:
    """Return the largest submodule with a weight and without weights that vary."""
    top = name.partition(".")[0]
    return name if top in varying else top


def _is_drawn(weight: nn.Parameter) -> bool:
    """Return whether a weight looks random; constant biases and scales are fixed on purpose."""
    return weight.numel() > 1 and not bool((weight == weight.flatten()[0]).all())


def _same_batch(one: Any, other: Any) -> bool:
    batches = [list(tensors(next(iter(_loader(each)), None))) for each in (one, other)]
    return bool(batches[0]) and len(batches[0]) == len(batches[1]) and all(map(same, *batches))


def _loader(given: Any) -> Any:
    """Return an iterable of batches; of several loaders, the first."""
    while isinstance(given, Mapping | list | tuple) and given:
        given = next(iter(given.values())) if isinstance(given, Mapping) else given[0]
    return given
