"""Operations that drop by code of their own, written as libraries and users write them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def drop_path(x: Tensor, drop_prob: float = 0.0, training: bool = False) -> Tensor:
    """Stochastic depth as a function, with a mask that is drawn in place."""
    if drop_prob == 0.0 or not training:
        return x
    keep = 1 - drop_prob
    mask = x.new_empty((len(x), *(1 for _ in x.shape[1:]))).bernoulli_(keep)
    return x * mask.div_(keep)


class DropPath(nn.Module):
    """A module around the function."""

    def __init__(self, drop_prob: float | None = None) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        return drop_path(x, self.drop_prob or 0.0, self.training)


class FlooredDropPath(nn.Module):
    """The same, its mask the whole part of a uniform number of Python's type."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 0.0 or not self.training:
            return x
        keep = 1 - self.p
        return x / keep * (keep + torch.rand((len(x), 1), dtype=float).to(x)).floor_()


class StochasticDepth(nn.Module):
    """One number for the whole batch, or one an example."""

    def __init__(self, p: float, mode: str) -> None:
        super().__init__()
        self.p, self.mode = p, mode

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0.0:
            return x
        size = [len(x) if self.mode == "row" else 1] + [1] * (x.dim() - 1)
        noise = torch.empty(size, dtype=x.dtype)
        noise.bernoulli_(1.0 - self.p)  # the result is not used: it works in place
        return x * noise / (1.0 - self.p)


class DropBlock(nn.Module):
    """Drops squares of three by three."""

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0:
            return x
        seeds = (torch.rand_like(x) < self.drop_prob / 9).to(x.dtype)
        keep = 1 - F.max_pool2d(seeds, 3, stride=1, padding=1)
        return x * keep * keep.numel() / keep.sum()


class InnerDropBlock(nn.Module):
    """Drops squares that lie in the image as a whole, at a rate that allows for the margin (as timm's)."""

    size = 3

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0:
            return x
        height, width = (side - self.size + 1 for side in x.shape[2:])
        chance = float(self.drop_prob * x.shape[2] * x.shape[3]) / float(self.size**2 * height * width)
        assert isinstance(chance, float)
        centres = x.new_empty((*x.shape[:2], height, width)).bernoulli_(chance)
        margin = self.size // 2
        dropped = F.max_pool2d(F.pad(centres, [margin] * 4), self.size, stride=1, padding=margin)
        return x * (1 - dropped)


class GaussianDropout(nn.Module):
    """Multiplies by normal numbers around 1."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        return x * (1 + torch.randn_like(x) * (self.p / (1 - self.p)) ** 0.5)


class LockedDropout(nn.Module):
    """One mask for all steps of `[steps, batch, features]`, its rate handed over in each call."""

    def forward(self, x: Tensor, dropout: float = 0.5) -> Tensor:
        if not self.training or not dropout:
            return x
        mask = x.data.new_empty(1, x.size(1), x.size(2)).bernoulli_(1 - dropout)
        return x * mask / (1 - dropout)


class DropConnect(nn.Module):
    """A linear layer whose weights are dropped."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.weight, self.p = nn.Parameter(torch.eye(40, dtype=torch.float64)), p

    def forward(self, x: Tensor) -> Tensor:
        keep = torch.full_like(self.weight, 1 - self.p)
        weight = self.weight * torch.bernoulli(keep) / (1 - self.p) if self.training else self.weight
        return x @ weight


class ZoneOut(nn.Module):
    """Keeps the old state of units."""

    def __init__(self, zoneout_prob: float) -> None:
        super().__init__()
        self.zoneout_prob = zoneout_prob

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = torch.empty_like(x).bernoulli_(self.zoneout_prob)
        return kept * torch.zeros_like(x) + (1 - kept) * x


def dropout_edge(edges: Tensor, p: float = 0.5, training: bool = True) -> tuple[Tensor, Tensor]:
    """Edges `[2, edges]` of a graph, and which of them were kept."""
    if not training or p == 0.0:
        return edges, torch.ones(edges.size(1), dtype=torch.bool)
    mask = torch.rand(edges.size(1)) >= p
    return edges[:, mask], mask


class Graph(nn.Module):
    """Drops edges by a number in its code."""

    def forward(self, edges: Tensor) -> Tensor:
        return dropout_edge(edges, p=0.2, training=self.training)[1].double()


class MonteCarloDropout(nn.Dropout):
    """Drops in evaluation too, on request."""

    sampling = False

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training or self.sampling)


class LoraLinear(nn.Module):
    """A low-rank part beside a frozen layer, its dropout under the name of an adapter."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.base = nn.Linear(6, 6).requires_grad_(False)
        self.lora_dropout = nn.ModuleDict({"default": nn.Dropout(p) if p > 0 else nn.Identity()})
        self.lora_A = nn.ModuleDict({"default": nn.Linear(6, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 6, bias=False)})

    def forward(self, x: Tensor) -> Tensor:
        dropped = self.lora_dropout["default"](x)
        return self.base(x) + self.lora_B["default"](self.lora_A["default"](dropped))


class LayerDropping(nn.Module):
    """Skips whole layers, at a rate of its own or of its configuration."""

    def __init__(self, layerdrop: float, of_config: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(400))
        self.config, self.of_config = SimpleNamespace(layerdrop=layerdrop), of_config
        self.layerdrop = None if of_config else layerdrop
        self.ran = 0

    def forward(self, x: Tensor) -> Tensor:
        self.ran = 0
        for layer in self.layers:
            chance = torch.rand([])
            rate = self.config.layerdrop if self.of_config else self.layerdrop
            if self.training and chance < rate:
                continue
            self.ran += 1
            x = layer(x)
        return x


class Holder(nn.Module):
    """A model of one operation, under the name `op`."""

    def __init__(self, op: nn.Module) -> None:
        super().__init__()
        self.op = op

    def forward(self, *args: Any) -> Any:
        return self.op(*args)
