"""Data modules whose batches have other forms than a tuple of tensors, and modules that read them."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from tests.user_modules.data import Digits
from tests.user_modules.nets import LitNet


class Named(NamedTuple):
    x: Tensor
    weight: Tensor | None
    y: Tensor


@dataclasses.dataclass
class Record:
    x: Tensor
    weight: Tensor | None
    y: Tensor
    note: str = "digits"


class Bag:
    """An object with `.to()`, which is no dataclass."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.inputs, self.size = {"x": x, "y": y}, len(x)

    def to(self, device: Any) -> Bag:
        return Bag(self.inputs["x"].to(device), self.inputs["y"].to(device))


FORMS: dict[str, Any] = {
    "dict": lambda x, y: {"x": x, "y": y, "split": "train", "size": len(x)},
    "dict with names": lambda x, y: {"x": x, "y": y, "names": [f"image {float(row.sum()):.3f}" for row in x]},
    "ordered dict": lambda x, y: OrderedDict(x=x, y=y),
    "named tuple": lambda x, y: Named(x, None, y),
    "dataclass": lambda x, y: Record(x, None, y),
    "nested": lambda x, y: ((x, None), {"y": [y, torch.tensor(2.0)]}),
    "object": Bag,
}


def parts(batch: Any) -> tuple[Tensor, Tensor]:
    if isinstance(batch, dict):
        return batch["x"], batch["y"]
    if isinstance(batch, Bag):
        assert batch.size == len(batch.inputs["x"])
        return batch.inputs["x"], batch.inputs["y"]
    if type(batch) is tuple:
        return batch[0][0], batch[1]["y"][0]
    assert batch.weight is None
    return batch.x, batch.y


class Formed(Digits):
    """Gives batches of one form."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def train_dataloader(self) -> Any:
        return DataLoader(self.train, self.batch_size, shuffle=True, collate_fn=self.collated)

    def val_dataloader(self) -> Any:
        return DataLoader(self.val, 64, collate_fn=self.collated)

    def collated(self, rows: Any) -> Any:
        return FORMS[self.form](torch.stack([x for x, _ in rows]), torch.stack([y for _, y in rows]))


class Reading(LitNet):
    """Reads batches of any form, and uses none of the texts."""

    def forward(self, x: Tensor) -> Tensor:
        # Lightning does not convert the tensors of an object to the precision of its Trainer.
        return super().forward(x.to(self.first.weight.dtype))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(parts(batch), batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = parts(batch)
        logits = self(x)
        self.log("val_loss", F.cross_entropy(logits, y), batch_size=len(y))
        self.log("val_acc", (logits.argmax(1) == y).float().mean(), batch_size=len(y))


class ReadingNames(Reading):
    """Makes a number of the names of its examples."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * (1 + sum(len(name) for name in batch["names"]) % 3)
