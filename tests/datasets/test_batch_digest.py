"""A digest tells data sets apart whatever form their batches have."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from dropsearch.datasets.batch_digest import arguments_of, digest
from dropsearch.datasets.user_data import UserData

Pair = namedtuple("Pair", "x y")


@dataclass
class Graph:
    nodes: Tensor
    name: str = "graph"


class Store:
    """A batch of a class of its own, which holds itself and a function."""

    def __init__(self, x: Tensor) -> None:
        self.x, self.self, self.function = x, self, print


FORMS: dict[str, Callable[[Tensor], Any]] = {
    "tensor": lambda x: x,
    "tuple": lambda x: (x, 1),
    "dict": lambda x: {"x": {"deep": [x]}, "y": None},
    "named tuple": lambda x: Pair(x, "y"),
    "dataclass": lambda x: Graph(x),
    "dataclass in a dict": lambda x: {"graph": [Graph(x)]},
    "object": lambda x: Store(x),
    "array": lambda x: x.numpy(),
    "array of objects": lambda x: np.array([x, None], dtype=object),
    "sparse": lambda x: x.to_sparse(),
    "bfloat16": lambda x: x.bfloat16(),
    "number": lambda x: float(x.sum()),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_tensor_and_value_counts(form: str) -> None:
    make, one, other = FORMS[form], torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])
    assert digest(make(one)) == digest(make(one.clone()))
    assert digest(make(one)) != digest(make(other))


def test_shape_type_and_place_count() -> None:
    x = torch.zeros(4)
    values = [x, x.view(2, 2), x.int(), [x], [x, x], {"x": x}, {"y": x}, (x[:2], x[2:])]
    assert len({digest(value) for value in values}) == len(values)


class Graphs(LightningDataModule):
    def __init__(self, shift: float, scale: float = 1.0, root: str = "here") -> None:
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self) -> Any:
        return DataLoader(torch.arange(8.0) + self.hparams["shift"], 4, collate_fn=lambda xs: Graph(torch.stack(xs)))  # type: ignore[arg-type]

    val_dataloader = train_dataloader


def test_batches_that_are_dataclasses_tell_data_sets_apart() -> None:
    first = UserData(Graphs(0.0), "Graphs").digest
    assert UserData(Graphs(0.0), "Graphs").digest == first
    assert UserData(Graphs(1.0), "Graphs").digest != first


def test_arguments_of_the_class_count_and_places_do_not() -> None:
    assert arguments_of(Graphs(0.0, root="there")) == {"scale": 1.0, "shift": 0.0}
    first = UserData(Graphs(0.0), "Graphs").digest
    assert UserData(Graphs(0.0, scale=2.0), "Graphs").digest != first
    assert UserData(Graphs(0.0, root="there"), "Graphs").digest == first


def test_examples_behind_the_first_batch_count_where_they_are_in_memory() -> None:
    from tests.user_modules import data

    class Changed(data.Digits):
        def setup(self, stage: str | None = None) -> None:
            super().setup(stage)
            self.train.dataset.tensors[0][self.train.indices[-1]] += 1  # type: ignore[attr-defined]

    assert UserData(Changed(), "Digits").digest != UserData(data.Digits(), "Digits").digest
