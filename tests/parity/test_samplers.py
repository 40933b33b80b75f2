"""Data modules with samplers, streams and hooks give a trial what they give plain Lightning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, Sampler, TensorDataset

from dropsearch.datasets.user_data import UserData
from tests.parity.census import Case, Cell, compare, compare_rows


def examples(count: int, seed: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x, x.sum(1, keepdim=True)


class Stream(IterableDataset):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(*examples(26, 1), strict=True)


class EvenFirst(Sampler[int]):
    def __iter__(self) -> Iterator[int]:
        return iter([*range(0, 26, 2), *range(1, 26, 2)])

    def __len__(self) -> int:
        return 26


class Data(LightningDataModule):
    given: Any = staticmethod(lambda: DataLoader(Stream(), batch_size=8))

    def train_dataloader(self) -> Any:
        return self.given()

    def val_dataloader(self) -> Any:
        return DataLoader(TensorDataset(*examples(20, 2)), batch_size=8)


class Sampled(Data):
    given = staticmethod(lambda: DataLoader(TensorDataset(*examples(26, 1)), batch_size=8, sampler=EvenFirst()))


class BatchSampled(Data):
    given = staticmethod(
        lambda: DataLoader(TensorDataset(*examples(26, 1)), batch_sampler=BatchSampler(EvenFirst(), 5, False))
    )


class Unbatched(Data):
    given = staticmethod(lambda: DataLoader(TensorDataset(*examples(26, 1)), batch_size=None))


class Prepared(Sampled):
    """Has state and hooks of its own."""

    def prepare_data(self) -> None:
        self.prepared = True

    def setup(self, stage: str) -> None:
        self.stage = stage

    def state_dict(self) -> dict[str, Any]:
        return {"stage": self.stage}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.stage = state_dict["stage"]


class Moving(Sampled):
    """Changes its batches on their way."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [batch[0] * 2, batch[1]]

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        return super().transfer_batch_to_device([batch[0], batch[1] / 2], device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0] + (1.0 if self.trainer and self.trainer.training else 0.0), batch[1]


KINDS = [Data, Sampled, BatchSampled, Unbatched, Prepared, Moving]


def case(kind: type[Data], **trainer: Any) -> Case:
    return Case(data=lambda: UserData(kind(), "data"), trainer=lambda: trainer, rates=(0.0,))


@pytest.mark.parametrize("kind", KINDS)
def test_in_sequence(kind: type[Data]) -> None:
    compare(case(kind))


@pytest.mark.parametrize("given", [{"limit_train_batches": 2}, {"val_check_interval": 2}], ids=str)
def test_a_stream_under_arguments_of_the_trainer(given: dict[str, Any]) -> None:
    compare(case(Data, **given))


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_row(kind: type[Data]) -> None:
    compare_rows(case(kind), "overrides on_before_batch_transfer" if kind is Moving else "")


class AddingAfter(Sampled):
    """Changes its batches on the device."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0] + 1, batch[1]


class Doubling(Cell):
    """Changes its batches too: before the data module does, in whose place it never does."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [batch[0] * 2, batch[1]]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0] * 0, batch[1]


@pytest.mark.filterwarnings("ignore:You have overridden `on_:UserWarning")
def test_beside_hooks_of_the_data_module_those_of_the_module_are_left_to_the_trainer() -> None:
    both = Case(Doubling, data=lambda: UserData(AddingAfter(), "data"), rates=(0.0,))
    compare(both)
    compare_rows(both, "overrides on_after_batch_transfer")
