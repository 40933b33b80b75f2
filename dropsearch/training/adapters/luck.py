"""The weights with which training starts: which of them, and what else, do not depend on a trial's seed."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from dropsearch.core.batches import same, tensors

SEED_ARGUMENTS = (
    "seed", "random_seed", "random_state", "rng_seed", "torch_seed", "manual_seed", "global_seed", "init_seed",
    "weight_seed", "model_seed",
)  # fmt: skip
"""Common names of seed arguments of constructors; seeds of data and splits are not among them."""

BATCHES = 4
"""Number of batches of an epoch that are compared, since samplers may put the longest examples first."""

SAMPLE = 4096
"""Number of values of a weight that are examined."""


def seed_arguments(accepted: Collection[str], given: Collection[str], seed: int) -> dict[str, int]:
    """Return the seed of a trial for each accepted seed argument that the user does not give."""
    return {name: seed for name in SEED_ARGUMENTS if name in accepted and name not in given}


def fixed_luck(first: Mapping[str, Tensor], second: Mapping[str, Tensor], loaders: tuple[Any, Any]) -> tuple[str, ...]:
    """Return what weights and loaders of two seeds have in common: (a part's) ``initial weights``, ``batch order``."""
    return (*_weights(first, second), *(["batch order"] if _same_order(*loaders) else []))


def described_weights(weights: Mapping[str, Tensor]) -> str:
    """Return how many weights there are, with a checksum of their names, shapes and types."""
    shapes = [(name, tuple(each.shape), str(each.dtype)) for name, each in weights.items()]
    count = sum(each.numel() for each in weights.values())
    return f"{count:,} in {len(shapes)} tensors ({hashlib.sha256(repr(shapes).encode()).hexdigest()[:8]})"


def notes(fixed: tuple[str, ...]) -> tuple[str, ...]:
    """Return a line for each fixed source of variation, with its consequence."""
    return tuple(
        f"the {part} does not vary with the seed, so intervals of differences do not cover it"
        if part == "batch order"
        else f"the {part} do not vary with the seed, so intervals of differences do not cover them"
        for part in fixed
    )


def _weights(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Iterator[str]:
    drawn = {name: weight for name, weight in first.items() if name in second and _is_drawn(weight)}
    fixed = [name for name, weight in drawn.items() if same(weight, second[name])]
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


def _is_drawn(weight: Tensor) -> bool:
    """Return whether a weight looks random.

    Others are fixed on purpose: constants, whole numbers, identity matrices, the bias of an LSTM whose forget gate
    starts at 1.
    """
    weight = weight.detach()
    flat = (torch.view_as_real(weight.resolve_conj()) if weight.is_complex() else weight).flatten()
    values = flat[:: max(len(flat) // SAMPLE, 1)].double().unique()
    return bool((values != values.round()).any()) and (len(values) > 2 or len(values) == 2 == len(flat))


def _same_order(one: Any, other: Any) -> bool:
    """Return whether the first batches of two epochs are the same; one batch alone has no order."""
    first, second = ([list(tensors(batch)) for batch in islice(_loader(each), BATCHES)] for each in (one, other))
    if len(first) != len(second) or len(first) < 2 or not first[0]:
        return False
    return all(len(a) == len(b) and all(map(same, a, b)) for a, b in zip(first, second, strict=True))


def _loader(given: Any) -> Any:
    """Return an iterable of batches; of several loaders, the first."""
    while isinstance(given, Mapping | list | tuple) and given:
        given = next(iter(given.values())) if isinstance(given, Mapping) else given[0]
    return given
