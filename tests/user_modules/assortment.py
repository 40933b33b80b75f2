"""More modules as users write them: each drops, or is built, in another way."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.user_modules.nets import LitNet


class Listed(LitNet):
    """Dropout in a list, and one in a lambda."""

    def __init__(self) -> None:
        super().__init__()
        self.drops = nn.ModuleList([nn.Dropout(0.1), nn.Dropout(0.2)])
        self.also = lambda x: F.dropout(x, 0.3, self.training)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.first(x))
        for drop in self.drops:
            hidden = drop(hidden)
        return self.last(self.also(hidden))


class Looped(LitNet):
    """A functional dropout in a loop, and a module that is used twice."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        for _ in range(2):
            hidden = F.dropout(F.relu(hidden), 0.2, self.training)
        return self.last(self.drop(self.drop(hidden)))


class Encoder(LitNet):
    """A Transformer encoder with dropout in its attention."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x.unflatten(1, (8, 8))).mean(1))


class Recurrent(LitNet):
    """An LSTM with dropout between its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(8, 6, num_layers=2, dropout=0.3, batch_first=True)
        self.head = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.rnn(x.unflatten(1, (8, 8)))[0][:, -1]))


def drop_path(x: Tensor, drop_prob: float, training: bool) -> Tensor:
    """Stochastic depth as other libraries have it."""
    if drop_prob == 0.0 or not training:
        return x
    return x * x.new_empty((len(x), 1)).bernoulli_(1 - drop_prob) / (1 - drop_prob)


class Branched(LitNet):
    """A residual branch that is dropped as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.first(x))
        return self.last(self.drop(hidden + drop_path(F.relu(self.branch(hidden)), 0.1, self.training)))


class OneLayer(LitNet):
    """A GRU of one layer, and dropout behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(8, 6, batch_first=True)
        self.head = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.rnn(x.unflatten(1, (8, 8)))[0][:, -1]))


class Tied(LitNet):
    """One matrix, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(64, 12, bias=False), nn.Linear(12, 64, bias=False)
        self.out.weight = nn.Parameter(self.into.weight.detach().T.clone())
        self.again = nn.Linear(64, 12, bias=False)
        self.again.weight = self.into.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(self.again(self.out(self.into(x)))))


class Frozen(LitNet):
    """A frozen backbone, and an optimiser of what is left."""

    def __init__(self) -> None:
        super().__init__()
        self.first.requires_grad_(False)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=self.hparams.lr)


class Backbone(LitNet):
    """A part that the constructor puts in eval mode, with dropout and a BatchNorm whose statistics stay."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Dropout(0.4))
        self.features.eval()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.features(x))


class Averaging(LitNet):
    """A buffer that each training step changes."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * x.detach().mean(0))
        return super().forward(x - self.mean)


class Noisy(LitNet):
    """Adds noise of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.1 * torch.randn_like(x) if self.training else x)


class Branching(LitNet):
    """Looks at its numbers."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.last(self.drop(hidden if hidden.mean() > 1e9 else F.relu(hidden)))


class OneCycle(LitNet):
    """A schedule over all steps, whose number it asks its Trainer for."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=self.hparams.lr, total_steps=int(steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Reassigning(LitNet):
    """Puts another tensor in the place of a buffer."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen = self.seen + 1
        return super().training_step(batch, batch_idx) * (1 + 0.1 * self.seen)


class Guarded(LitNet):
    """Has its dropout only at a rate above 0."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(F.relu(self.first(x))))
