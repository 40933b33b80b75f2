"""LightningDataModules as users write them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from lightning import LightningDataModule
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)


@cache
def digits() -> tuple[Any, Any]:
    """Return images and labels of scikit-learn, whose text file takes longer to parse than a trial to train."""
    return load_digits(return_X_y=True)


class Digits(LightningDataModule):
    """Digits, split at random by whatever seed there is."""

    def __init__(self, batch_size: int = 32, examples: int = 150, name: str = "") -> None:
        super().__init__()
        self.batch_size, self.examples, self.given = batch_size, examples, name

    def setup(self, stage: str | None = None) -> None:
        x, y = digits()
        x = torch.tensor(x[: self.examples], dtype=torch.float32) / 16
        self.train, self.val = random_split(TensorDataset(x, torch.tensor(y[: self.examples])), [0.7, 0.3])

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, batch_size=self.batch_size, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.val, batch_size=64)


class Cancelled(Digits):
    """Whose setup is cancelled, as a task of asyncio is."""

    def setup(self, stage: str | None = None) -> None:
        raise asyncio.CancelledError("the download was cancelled")


class WithTest(Digits):
    """With a test set."""

    def test_dataloader(self) -> Any:
        x, y = digits()
        return DataLoader(TensorDataset(torch.tensor(x[-100:] / 16, dtype=torch.float32), torch.tensor(y[-100:])), 64)


class EmptyTest(Digits):
    """With a test set of no examples."""

    def test_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.zeros(0, 64), torch.zeros(0, dtype=torch.long)), 64)


class ThreeWays(Digits):
    """Split in three at random, in a `setup` that runs for each stage."""

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        whole = self.train.dataset
        self.train, self.val, self.test = random_split(whole, [0.6, 0.2, 0.2])

    def test_dataloader(self) -> Any:
        return DataLoader(self.test, batch_size=64)


class Leaking(ThreeWays):
    """Whose stages are split by numbers that nobody seeds."""

    def setup(self, stage: str | None = None) -> None:
        torch.manual_seed({"fit": 1, "test": 2}[stage or "fit"])
        super().setup(stage)


class Augmented(Digits):
    """Whose examples differ from one reading to the next."""

    def train_dataloader(self) -> Any:
        class Noisy(Dataset[Any]):
            def __init__(self, inner: Any) -> None:
                self.inner = inner

            def __len__(self) -> int:
                return len(self.inner)

            def __getitem__(self, index: int) -> Any:
                x, y = self.inner[index]
                return x + 0.1 * torch.randn_like(x), y

        return DataLoader(Noisy(self.train), batch_size=self.batch_size, shuffle=True)


class Seen(Digits):
    """Validates on training examples: all of them, or half."""

    def __init__(self, share: float = 1.0) -> None:
        super().__init__()
        self.share = share

    def val_dataloader(self) -> Any:
        examples: Any = [self.train[index] for index in range(20)] + [self.val[index] for index in range(20)]
        return DataLoader(examples[:20] if self.share == 1 else examples, 8)


class SeldomAugmented(Digits):
    """Whose examples are changed so seldom that two readings mostly agree; which generator decides is given."""

    def __init__(self, chance: Callable[[], float], last: bool = False) -> None:
        super().__init__()
        self.chance, self.last = chance, last

    def train_dataloader(self) -> Any:
        chance, last = self.chance, self.last

        class Seldom(Dataset[Any]):
            def __init__(self, inner: Any) -> None:
                self.inner = inner

            def __len__(self) -> int:
                return len(self.inner)

            def __getitem__(self, index: int) -> Any:
                x, y = self.inner[index]
                asked = not last or index == len(self) - 1
                return (x.flip(0) if asked and chance() < 1e-9 else x), y

        return DataLoader(Seldom(self.train), batch_size=self.batch_size, shuffle=True)


class Weighted(Digits):
    """With a sampler of its own."""

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, self.batch_size, sampler=WeightedRandomSampler([1.0] * len(self.train), 64))


class Sampled(Digits):
    """Whose epochs are a random part of the training set."""

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, self.batch_size, sampler=RandomSampler(self.train, num_samples=64))


class Brief(DataLoader[Any]):
    """Gives two batches an epoch, whatever it holds."""

    def __iter__(self) -> Any:
        return itertools.islice(super().__iter__(), 2)

    def __len__(self) -> int:
        return 2


class Shortening(Digits):
    """With a kind of DataLoader of its own."""

    def train_dataloader(self) -> Any:
        return Brief(self.train, self.batch_size, shuffle=True)


class Redrawn(Digits):
    """Whose epochs are drawn with replacement."""

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, self.batch_size, sampler=RandomSampler(self.train, replacement=True))


class Shortened(Digits):
    """Whose epochs are the first part of the training set."""

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, self.batch_size, sampler=SequentialSampler(range(64)))


class Streamed(Digits):
    """An iterable set."""

    def train_dataloader(self) -> Any:
        class Stream(IterableDataset[Any]):
            def __init__(self, inner: Any) -> None:
                self.inner = inner

            def __iter__(self) -> Any:
                return (self.inner[index] for index in range(len(self.inner)))

        return DataLoader(Stream(self.train), batch_size=self.batch_size)


class Dicts(Digits):
    """Whose batches are dictionaries."""

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, self.batch_size, shuffle=True, collate_fn=_as_dict)


class Padded(Digits):
    """Whose batches are padded to their longest example."""

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, self.batch_size, shuffle=True, collate_fn=_cut)


class Moving(Digits):
    """With a hook on batches."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        x, y = batch
        return 2 * x, y


class Scaling(Digits):
    """With hooks that scale and center each batch."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0] / 3, batch[1]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return {"x": batch[0] - batch[0].mean(0), "y": batch[1]}


class GoingOn:
    """Gives three batches in each epoch, of one stream without an end."""

    def __init__(self, loader: Any) -> None:
        self.stream = itertools.chain.from_iterable(itertools.repeat(loader))

    def __iter__(self) -> Any:
        return itertools.islice(self.stream, 3)


class Streaming(Digits):
    """Whose training batches go on where the last epoch stopped."""

    def train_dataloader(self) -> Any:
        return GoingOn(DataLoader(self.train, self.batch_size))


class Sourced(IterableDataset):
    """Goes on with one stream of examples."""

    def __init__(self, examples: Any) -> None:
        self.stream = itertools.cycle([examples[index] for index in range(len(examples))])

    def __iter__(self) -> Any:
        return itertools.islice(self.stream, 90)


class StreamingSet(Digits):
    """Whose training set goes on where the last epoch stopped."""

    def train_dataloader(self) -> Any:
        return DataLoader(Sourced(self.train), self.batch_size)


class Opened:
    """The batches of one epoch, which say whether they were closed."""

    def __init__(self, batches: Any, open_ones: list[Any]) -> None:
        self.batches, self.open_ones = batches, open_ones
        open_ones.append(self)

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return next(self.batches)

    def close(self) -> None:
        self.open_ones.remove(self)


class SelfSeeding:
    """Draws an order in each epoch from a generator that it seeds itself, or not at all."""

    def __init__(self, examples: Any, open_ones: list[Any], seed: int | None) -> None:
        self.examples, self.open_ones, self.seed = examples, open_ones, seed

    def __iter__(self) -> Any:
        order = np.random.default_rng(self.seed).permutation(len(self.examples)).tolist()
        return Opened(iter(DataLoader([self.examples[index] for index in order], 32)), self.open_ones)


class SelfSeeded(Digits):
    """Whose training loader seeds itself."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        self.open_ones: list[Any] = []
        self.seed = seed

    def train_dataloader(self) -> Any:
        return SelfSeeding(self.train, self.open_ones, self.seed)


class Ordered(Digits):
    """Whose training set is not shuffled."""

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, batch_size=self.batch_size)


class WithoutTraining(LightningDataModule):
    """Without training data."""

    def val_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.zeros(4, 64)), 2)


class Testless(Digits):
    """Was given no test set, and says so."""

    def test_dataloader(self) -> Any:
        raise ValueError("no test set provided")


class Failing(Digits):
    """Whose files are not there."""

    def setup(self, stage: str | None = None) -> None:
        raise FileNotFoundError("no file digits.bin")


def _as_dict(examples: list[Any]) -> dict[str, Tensor]:
    return {"x": torch.stack([x for x, _ in examples]), "y": torch.stack([y for _, y in examples])}


def _cut(examples: list[Any]) -> tuple[Tensor, Tensor]:
    longest = max(int(y) + 55 for _, y in examples)
    return torch.stack([x[:longest] for x, _ in examples]), torch.stack([y for _, y in examples])
