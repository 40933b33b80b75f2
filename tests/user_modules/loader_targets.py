"""Functions and classes that give loaders, as a command line names them."""

from __future__ import annotations

from typing import Any, NamedTuple

from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset

from tests.user_modules.configured import Points, Small


class Set(Dataset):  # type: ignore[type-arg]
    """The examples of `Points` as a data set."""

    def __init__(self, n: int = 32) -> None:
        points = Points(n)
        points.setup()
        self.examples = points.examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Any:
        return self.examples[index]


def pair(n: int = 32) -> tuple[Any, Any]:
    return DataLoader(Set(n), 8, shuffle=True), DataLoader(Set(16), 16)


def three() -> list[Any]:
    return [*pair(), DataLoader(Set(8), 8)]


def mapping() -> dict[str, Any]:
    train, val, test = three()
    return {"train_dataloaders": train, "val_dataloaders": [val], "test": test}


class Both(NamedTuple):
    train: Any = DataLoader(Set(), 8, shuffle=True)
    val: Any = DataLoader(Set(16), 16)


class Maker:
    @staticmethod
    def make(n: int) -> LightningDataModule:
        return Points(n)


def one() -> Any:
    return DataLoader(Set(), 8)


def half() -> Any:
    return {"train": one(), "valid": one()}


class Holding(Small):
    """Has its loaders itself."""

    def train_dataloader(self) -> Any:
        return pair()[0]

    def val_dataloader(self) -> Any:
        return pair()[1]
