"""Modules whose parts are frozen: a backbone under a new head, and low-rank adapters beside a frozen base."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dropsearch.core.global_state import seeded
from tests.user_modules.nets import LitNet


def pretrained() -> nn.Sequential:
    """Return a frozen part with the same weights each time, as from a file."""
    with seeded(3):
        part = nn.Sequential(nn.Linear(64, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 64), nn.Tanh())
        for _ in range(3):
            part(torch.randn(30, 64))
    return part.eval().requires_grad_(False)


class NewHead(LitNet):
    """A pretrained part in evaluation mode, and a new head; its optimiser has all parameters."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.backbone = pretrained()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.backbone(x))


class Normalizing(NewHead):
    """The same, whose BatchNorm goes on to follow its batches in training."""

    def on_fit_start(self) -> None:
        """Do what is needed for a hook."""
        self.started = True

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.backbone.train()
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.backbone.eval()
        super().validation_step(batch, batch_idx)


class Adapter(nn.Module):
    """A low-rank sum beside a frozen layer (Hu et al. 2021)."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_dropout = nn.Dropout(0.1)
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(self.lora_dropout(x)))


class Lora(LitNet):
    """Two adapters in a pretrained net, and nothing else that trains."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        base = pretrained()
        self.first, self.norm, self.last = Adapter(base[0]), base[1], Adapter(base[3])  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(F.relu(self.norm(self.first(x)))))[:, :10]

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=self.hparams.lr)


class Lottery(NewHead):
    """Whose frozen part is drawn anew in each trial."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        for part in self.backbone:
            if isinstance(part, nn.Linear):
                part.reset_parameters()


class Mixed(NewHead):
    """Whose first frozen layer is drawn anew, and one of whose parameter groups has a frozen part."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.backbone[0].reset_parameters()  # type: ignore[operator]

    def configure_optimizers(self) -> Any:
        head = [*self.first.parameters(), *self.last.parameters()]
        groups = [{"params": list(self.backbone.parameters()), "weight_decay": 0.1}, {"params": head[:1]}]
        return torch.optim.SGD([{"params": [*groups[0]["params"], *head[1:]]}, groups[1]], lr=self.hparams.lr)


class Fading(NewHead):
    """Changes its frozen part at the start of an epoch."""

    def on_train_epoch_start(self) -> None:
        with torch.no_grad():
            self.backbone[0].weight.mul_(0.5 + float(self.hparams.lr))  # type: ignore[union-attr,operator]
