"""Modules whose constructors take what configurations hold: nested groups, dataclasses, namespaces, partials."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


@dataclass
class NetConfig:
    hidden: int = 8
    rate: float = 0.3


DEFAULT = NetConfig()


class Small(LightningModule):
    def __init__(self, hidden: int = 8, lr: float = 1e-2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr
        self.net = nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Dropout(0.3), nn.Linear(hidden, 2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class ByGroup(Small):
    """Reads a nested group by attributes, as `DictConfig` allows."""

    def __init__(self, cfg: Any, lr: float = 1e-2) -> None:
        super().__init__(cfg.net.hidden, lr)
        self.save_hyperparameters()


class ByDataclass(Small):
    def __init__(self, cfg: NetConfig = DEFAULT, lr: float = 1e-2) -> None:
        assert isinstance(cfg, NetConfig)
        super().__init__(cfg.hidden, lr)
        self.net[2].p = cfg.rate


class ByNamespace(Small):
    def __init__(self, args: Namespace, lr: float = 1e-2) -> None:
        assert isinstance(args, Namespace)
        super().__init__(args.hidden, lr)
        self.save_hyperparameters(args)


class ByKeywords(Small):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(kwargs["hidden"], kwargs.get("lr", 1e-2))


class HandingOn(Small):
    def __init__(self, extra: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.extra = extra


class ByPartial(Small):
    def __init__(self, optimizer: Callable[..., Any]) -> None:
        super().__init__()
        self.optimizer = optimizer

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.parameters())


class BuildsItself(Small):
    """Builds its optimizer from the group that it is given, with `_recursive_: false`."""

    def __init__(self, optimizer: Any) -> None:
        super().__init__()
        self.optimizer = optimizer

    def configure_optimizers(self) -> Any:
        return instantiate(self.optimizer, params=self.parameters())


class Points(LightningDataModule):
    def __init__(self, n: int = 32) -> None:
        super().__init__()
        self.n = n

    def setup(self, stage: str | None = None) -> None:
        x = torch.randn(self.n, 4, generator=torch.Generator().manual_seed(0))
        self.examples = TensorDataset(x, (x[:, 0] > 0).long())

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.examples, 16, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.examples, 32)
