"""The user's own generators are seeded for each batch and have their own states otherwise."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from dropsearch.datasets.keyed_loader import keyed
from dropsearch.datasets.keyed_random import generators_in
from dropsearch.datasets.lockstep import LockstepReader

RNG = np.random.default_rng(0)


class Noisy(Dataset[Tensor]):
    """Draws from a generator that it holds and from one that its module holds."""

    def __init__(self, draw: Callable[[], Any]) -> None:
        self.draw = draw

    def __getitem__(self, index: int) -> Tensor:
        return torch.tensor([float(self.draw()), RNG.random()])

    def __len__(self) -> int:
        return 8


class Endless(IterableDataset[Tensor]):
    """Draws from a generator of its module."""

    def __iter__(self) -> Any:
        for _ in range(8):
            yield torch.tensor([RNG.random()])


def python() -> tuple[Callable[[], Any], Callable[[], Any]]:
    generator = random.Random(3)
    return generator.random, generator.getstate


def numpy() -> tuple[Callable[[], Any], Callable[[], Any]]:
    generator = np.random.default_rng(3)
    return generator.random, lambda: generator.bit_generator.state


def legacy() -> tuple[Callable[[], Any], Callable[[], Any]]:
    generator = np.random.RandomState(3)
    return generator.random_sample, lambda: generator.get_state()[1].tolist()  # type: ignore[call-overload]


def of_torch() -> tuple[Callable[[], Any], Callable[[], Any]]:
    generator = torch.Generator().manual_seed(3)
    return lambda: torch.rand((), generator=generator), lambda: generator.get_state().tolist()


@pytest.mark.parametrize("make", [python, numpy, legacy, of_torch])
def test_generators_have_their_states_back_after_each_batch(make: Any) -> None:
    draw, state = make()
    order = torch.Generator().manual_seed(5)
    loader = DataLoader(Noisy(draw), 4, shuffle=True, generator=order)
    before = state(), RNG.bit_generator.state, order.get_state().tolist()
    seen = []
    for batch in keyed(loader, 0, "train"):
        seen.append(batch)
        assert (state(), RNG.bit_generator.state, order.get_state().tolist()) == before
        draw()  # what else draws changes no batch
        RNG.random()
        before = state(), RNG.bit_generator.state, order.get_state().tolist()
    assert torch.equal(torch.cat(seen), torch.cat([*keyed(loader, 0, "train")]))
    assert not torch.equal(seen[0], seen[1])


def test_generators_have_their_states_back_in_lockstep_and_with_an_iterable_set() -> None:
    draw, state = numpy()
    for loader in (DataLoader(Noisy(draw), 4), DataLoader(Endless(), 4)):
        before = state(), RNG.bit_generator.state
        for _ in LockstepReader().epoch([keyed(loader, seed, "train") for seed in (0, 1)], [2, 2]):
            assert (state(), RNG.bit_generator.state) == before


def test_the_number_of_worker_processes_changes_no_batch() -> None:
    alone, apart = (
        torch.cat([*keyed(DataLoader(Noisy(numpy()[0]), 4, num_workers=count), 0, "train")]) for count in (0, 2)
    )
    assert torch.equal(alone, apart)


def test_a_generator_of_the_system_is_left_alone() -> None:
    assert not generators_in([random.SystemRandom()])
