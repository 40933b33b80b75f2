"""A digest tells data sets apart whatever form their batches have."""

from __future__ import annotations

import tracemalloc
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler

from dropsearch.datasets import data_digest
from dropsearch.datasets.data_digest import arguments_of, digest, held
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


class Noisy(Dataset[Any]):
    """Adds noise, so that its examples are not held in memory; its data are of several forms."""

    def __init__(self, x: Any, labels: list[str], file: Path | None = None) -> None:
        self.x, self.labels, self.file, self.reads, self.cache = x, labels, file, 0, {}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        self.cache[str(index)] = torch.rand(1)
        return torch.as_tensor(self.x[index]) + torch.rand(3)


class Parts(LightningDataModule):
    """Gives three sets, and loaders with options."""

    def __init__(self, sets: Any, **options: Any) -> None:
        super().__init__()
        self.sets, self.options = sets, options

    def train_dataloader(self) -> Any:
        return DataLoader(self.sets[0], **{"batch_size": 2, **self.options})

    def val_dataloader(self) -> Any:
        return DataLoader(self.sets[1], 2)

    def test_dataloader(self) -> Any:
        return DataLoader(self.sets[2], 2)


def parts(folder: Path, *, labels: str = "b", part: int = -1, last: float = 0.0, **options: Any) -> Parts:
    """Return data whose last value or label of a part differs, or that lies in another place."""
    values, sets = np.zeros((5, 3), dtype=np.float32), []
    for number in range(3):
        own = values.copy()
        own[-1, -1] += last if part == number else 0.0
        folder.mkdir(exist_ok=True)
        np.save(folder / f"{number}.npy", own)
        x = np.load(folder / f"{number}.npy", mmap_mode="r") if number == 1 else own
        sets.append(Noisy(x, ["a"] * 4 + [labels if number == 0 else "b"], folder / f"{number}.npy"))
    return Parts(sets, **options)


def test_what_is_read_later_counts(tmp_path: Path) -> None:
    def known(place: str = "one", **changed: Any) -> str:
        return UserData(parts(tmp_path / place, **changed), "Parts").digest

    first = known()
    assert known() == first
    assert known("two") == first, "the place of a file is no part of the data"
    weights = WeightedRandomSampler([1.0, 1.0, 1.0, 1.0, 2.0], 5)
    others = [
        {"labels": "c"},
        *({"part": part, "last": 1.0} for part in range(3)),
        {"batch_size": 3},
        {"shuffle": True},
    ]
    others += [{"drop_last": True}, {"sampler": weights}, {"sampler": WeightedRandomSampler([1.0] * 5, 5)}]
    assert len({first, *(known(**each) for each in others)}) == len(others) + 1


def test_a_file_behind_a_path_counts(tmp_path: Path) -> None:
    (path := tmp_path / "x.csv").write_text("1,2")
    first = held({"path": str(path)}), held([str(path), "b"])
    path.write_text("1,3")
    assert held({"path": str(path)}) != first[0]
    path.write_text("1,33")
    assert held([str(path), "b"]) != first[1], "of the files in a list the size counts"


class Odd:
    """Raises where it is looked at."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


def test_objects_that_raise_and_those_that_hold_no_data_do_not_count() -> None:
    inside = {"x": torch.ones(2), "module": Parts([torch.rand(3)]), "odd": Odd(), "large": [10**400]}
    assert held(inside) == held({**inside, "module": Parts([torch.rand(3)])})
    assert held(inside) != held({**inside, "x": torch.zeros(2)})


class Filling(Dataset[Any]):
    """Keeps what it has read."""

    def __init__(self) -> None:
        self.items: list[Any] = [None] * 4

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        self.items[index] = torch.full((3,), float(index))
        return self.items[index] + torch.rand(3)


def test_a_data_set_that_fills_itself_is_the_same_afterwards() -> None:
    data = Filling()
    first = held(data)
    assert data[2].shape == (3,)
    assert held(data) == first


class Holder:
    def __init__(self, **held: Any) -> None:
        vars(self).update(held)


@pytest.mark.parametrize(
    "changes",
    [
        lambda: ({"labels": {0: 1.5, 1: [1, 2]}}, {"labels": {0: 1.5, 1: [1, 3]}}),
        lambda: ({"logits": torch.zeros(3)}, {"logits": torch.ones(3)}),
        lambda: ({"a": Odd(), "x": torch.zeros(3)}, {"a": Odd(), "x": torch.ones(3)}),
        lambda: ({"x": [1] * 9_000}, {"x": [1] * 8_999 + [2]}),
        lambda: ({"x": np.array(["a", "b"])}, {"x": np.array(["a", "c"])}),
    ],
)
def test_changes_count(changes: Any) -> None:
    before, after = changes()
    assert held(Holder(**before)) == held(Holder(**before))
    assert held(Holder(**before)) != held(Holder(**after))


def test_a_list_of_files_may_move(tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "x.txt").write_text("1")
    one, two = (np.array([str(tmp_path / place / "x.txt")]) for place in ("one", "two"))
    assert held(Holder(files=one)) == held(Holder(files=two))


def test_of_what_is_large_a_sample_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_digest, "MOST_BYTES", 100_000)
    wide = np.lib.format.open_memmap(tmp_path / "wide.npy", mode="w+", dtype=np.float32, shape=(2, 1_000_000))
    tracemalloc.start()
    first = held(Holder(x=wide)), held(Holder(file=str(tmp_path / "wide.npy")))
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()
    wide[1] = 1.0
    wide.flush()
    assert held(Holder(x=wide)) != first[0]
    assert held(Holder(file=str(tmp_path / "wide.npy"))) != first[1]


class OnDisk(Mapping[str, Any]):
    """A mapping whose values are read from a disk."""

    def __getitem__(self, key: str) -> Any:
        raise AssertionError("read")

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


def test_a_mapping_that_is_no_dict_is_not_read() -> None:
    held(Holder(store=OnDisk(), many={str(number): torch.ones(1) for number in range(20_000)}))
