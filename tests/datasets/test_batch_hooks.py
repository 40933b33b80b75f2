"""Batch transfer hooks of a data module train vectorized only if they keep nothing from one batch to the next."""

from __future__ import annotations

import itertools
import logging
import random
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dropsearch.datasets.data_digest import digest
from dropsearch.datasets.kept_state import kept_state
from dropsearch.datasets.user_parts import BatchHooks
from tests.user_modules.data import Digits, Scaling

LOG = logging.getLogger(__name__)
SEEN: dict[str, int] = {"n": 0}
CONSTANTS = {"scale": torch.tensor(3.0)}


class Slotted:
    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def add(self) -> None:
        self.count += 1


class Hooked(Digits):
    """Calls `act` with what `make` returned, in a hook that returns its batch."""

    def __init__(self, make: Callable[[], Any], act: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.kept, self.act = make(), act

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.act(self.kept, batch[0])
        return batch


class OfClass(Digits):
    seen: list[int] = []  # noqa: RUF012

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.seen.append(len(batch))
        return batch


class OfGlobal(Digits):
    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        SEEN["n"] += 1
        return batch


class Answering(Digits):
    """Whose answers show a state that is nowhere to be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = (float(each) for each in itertools.count())

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0] + next(self.counts), batch[1]


def bump(kept: Any, x: Tensor) -> None:
    kept["n"] += 1


def closed_over() -> Callable[[Any, Tensor], None]:
    seen: list[int] = []
    return lambda kept, x: seen.append(len(x))


KEEPING: dict[str, tuple[Callable[[], Any], Callable[[Any, Tensor], Any]]] = {
    "mapping": (lambda: {"n": 0}, bump),
    "default mapping": (lambda: defaultdict(int), bump),
    "tensor": (lambda: torch.zeros(()), lambda kept, x: kept.add_(1)),
    "data of a tensor": (lambda: torch.zeros(3), lambda kept, x: kept.data.add_(1)),
    "array": (lambda: np.zeros(3), lambda kept, x: np.add(kept, 1, out=kept)),
    "list": (list, lambda kept, x: kept.append(len(x))),
    "queue of a length": (lambda: deque([0], maxlen=1), lambda kept, x: kept.append(kept[0] + 1)),
    "set": (lambda: {0}, lambda kept, x: kept.add(len(kept))),
    "nested": (lambda: {"a": [torch.zeros(2)]}, lambda kept, x: kept["a"][0].add_(1)),
    "batch norm": (lambda: nn.BatchNorm1d(64), lambda kept, x: kept(x.flatten(1).float())),
    "object": (Slotted, lambda kept, x: kept.add()),
    "method": (lambda: Slotted().add, lambda kept, x: kept()),
    "counter": (itertools.count, lambda kept, x: next(kept)),
    "iterator": (lambda: iter([1, 2, 3, 4]), lambda kept, x: next(kept)),
    "generator of torch": (lambda: torch.Generator(), lambda kept, x: torch.rand(2, generator=kept)),
    "generator of numpy": (lambda: np.random.default_rng(0), lambda kept, x: kept.random()),
    "old generator of numpy": (lambda: np.random.RandomState(0), lambda kept, x: kept.rand()),
    "generator of python": (lambda: random.Random(0), lambda kept, x: kept.random()),
    "large tensor": (lambda: torch.zeros(2**25), lambda kept, x: kept.add_(1)),
    "closure": (dict, closed_over()),
}
PLAIN: dict[str, tuple[Callable[[], Any], Callable[[Any, Tensor], Any]]] = {
    "nothing": (lambda: None, lambda kept, x: None),
    "constants": (lambda: {"mean": torch.ones(64), "names": ["a"] * 30_000}, lambda kept, x: kept["mean"] + 1),
    "module": (lambda: nn.BatchNorm1d(64).eval(), lambda kept, x: kept(x.flatten(1).float())),
    "globals": (lambda: None, lambda kept, x: x / CONSTANTS["scale"]),
    "method": (lambda: Slotted().__repr__, lambda kept, x: kept()),
    "a log": (lambda: None, lambda kept, x: LOG.debug("%s", x.shape)),
    "unused": (lambda: [iter([1]), itertools.count(), np.random.default_rng(0), {1}], lambda kept, x: x + 1),
}


def can_be_called(module: Any) -> bool:
    return BatchHooks(module, is_double=False).can_be_called((torch.randn(8, 64), torch.zeros(8)))


@pytest.mark.parametrize("kind", KEEPING)
def test_hooks_that_keep_state_in_place(kind: str) -> None:
    assert not can_be_called(Hooked(*KEEPING[kind]))


@pytest.mark.parametrize("kind", [OfClass, OfGlobal, Answering])
def test_hooks_whose_state_is_elsewhere(kind: type) -> None:
    assert not can_be_called(kind())


@pytest.mark.parametrize("kind", PLAIN)
def test_hooks_without_state(kind: str) -> None:
    assert can_be_called(Hooked(*PLAIN[kind]))
    assert can_be_called(Scaling())


class Unprintable(dict[str, int]):
    """An entry of a large container that must not be printed."""

    def __repr__(self) -> str:
        raise AssertionError("a container is not printed")


def test_what_is_read_of_large_values_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[int]()

    def counted(value: Any) -> str:
        read.append(len(value) if isinstance(value, np.ndarray) else 0)
        return digest(value)

    monkeypatch.setattr("dropsearch.datasets.kept_state.digest", counted)
    large = [np.zeros(2**20) for _ in range(100)]  # 800 MB, if they were written to
    entries = [Unprintable(n=n) for n in range(200_000)]
    state = kept_state(Hooked(lambda: [large, entries, "x" * 10**7, [[0] * 500] * 1000], print), ())
    assert state
    assert sum(read) * 8 <= 2**26 + 100 * 8 * 4096
