"""User modules whose dropout is absent, asleep, without effect, or in odd places."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.user_modules.nets import LitNet


class Plain(LitNet):
    """Has activations, and no dropout."""

    def __init__(self, width: int = 12, lr: float = 1e-3) -> None:
        super().__init__(width, lr)
        del self.drop
        self.relu, self.between, self.tanh = nn.ReLU(), nn.Linear(width, width), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.tanh(self.between(self.relu(self.first(x.flatten(1))))))


class Asleep(LitNet):
    """Is handed over in eval mode."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.eval()


class Dead(LitNet):
    """Makes nothing of what it drops."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.first(x.flatten(1)))
        self.drop(hidden)
        return self.last(hidden)


class Odd(LitNet):
    """One site of every sort: a call, used twice, without effect, behind an `if`, in a fused kernel, drawn by hand."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.between = nn.Sequential(nn.Linear(12, 12), nn.ReLU())
        self.between.eval()
        self.lost, self.never = nn.Dropout(0.2), nn.Dropout(0.1)
        self.lstm = nn.LSTM(12, 12, num_layers=2, dropout=0.3, batch_first=True)
        self.single = nn.LSTM(12, 12, batch_first=True)
        self.single.dropout = 0.4  # as an argument PyTorch warns of it
        self.is_late = False

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.between(F.dropout(self.first(x.flatten(1)), 0.3, self.training))
        self.lost(hidden)
        hidden = self.never(hidden) if self.is_late else hidden * torch.bernoulli(torch.full_like(hidden, 0.9))
        hidden = self.single(self.lstm(hidden.unsqueeze(1))[0])[0].squeeze(1)
        return self.last(self.drop(self.drop(hidden)))
