"""Passes of a trained network over many examples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dropsearch.evidence.measures.trained import Examples, Trained
from dropsearch.records import ARMS
from dropsearch.seeds import derived_seed

MOST = 2000
"""Of a larger set this many examples are looked at: an accuracy is then known to about a point."""
BATCH = 2048
"""The most examples that go through a network at a time."""
FEATURES = 1 << 22
"""The most features that do: fewer examples where each is large."""


def at_most(examples: Examples, most: int = MOST) -> Examples:
    """Return the examples themselves, or of a larger set the same `most` of them each time, in their order."""
    if len(examples) <= most:
        return examples
    generator = torch.Generator().manual_seed(derived_seed(0, "evidence", "examples"))
    rows = torch.randperm(len(examples), generator=generator)[:most].sort().values.to(examples.targets.device)
    return Examples(tuple(each[rows] for each in examples.inputs), examples.targets[rows])


def at_once(inputs: Sequence[Tensor]) -> int:
    """Return how many examples of such inputs go through a network at a time, at least 1."""
    return max(min(BATCH, FEATURES // max(inputs[0][:1].numel(), 1)), 1)


def batches(inputs: Sequence[Tensor]) -> list[tuple[Tensor, ...]]:
    """Split inputs, each [examples, ...], into as few batches as can be, all of one size or one less."""
    count = -(-len(inputs[0]) // at_once(inputs))
    return list(zip(*(each.tensor_split(max(count, 1)) for each in inputs), strict=True))


@torch.no_grad()
def logits_of(trained: Trained, inputs: Sequence[Tensor]) -> Tensor:
    """Return the logits [examples, classes] of a network with dropout off."""
    return torch.cat([trained.predict(*batch) for batch in batches(inputs)])


def has_dropout(trained: Trained) -> bool:
    """Whether a network belongs to an arm with dropout and has sites for it, be all their rates zero."""
    return bool(trained.spec.rates) and ARMS[trained.spec.arm].dropout != "off"
