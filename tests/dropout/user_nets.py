"""Plain modules as users write them: layers, loops, lists, convolutions, buffers."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Base(nn.Module):
    """The first of three generations."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.body = nn.Linear(5, width)
        self.drop = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(torch.relu(self.body(x)))


class Child(Base):
    def __init__(self, width: int = 6) -> None:
        super().__init__(width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(super().forward(x))


class Grandchild(Child):
    """Drops once more, in the style of a subclass's author."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.dropout(x, p=0.1, training=self.training))


class InAList(nn.Module):
    """Keeps dropouts in a plain list: they are not registered, and `.eval()` never reaches them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(5, 5) for _ in range(2)])
        self.drops = [nn.Dropout(0.1), nn.Dropout(0.4)]

    def forward(self, x: Tensor) -> Tensor:
        for layer, drop in zip(self.layers, self.drops, strict=True):
            x = drop(layer(x).relu())
        return x


class InALambda(nn.Module):
    """Builds its blocks of closures over itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
        self.drop = nn.Dropout(0.3)
        self.blocks: list[Callable[[Tensor], Tensor]] = [
            lambda x: self.drop(self.first(x)),
            lambda x: F.dropout(self.second(x), 0.25, self.training),
        ]

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class LoopingNet(nn.Module):
    """Drops functionally in a loop, and never says where."""

    def __init__(self, p: float = 0.15) -> None:
        super().__init__()
        self.p = p
        self.step = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = F.dropout(self.step(x).tanh(), self.p, self.training)
        return x


class Reusing(nn.Module):
    """One dropout module under two names, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(5, 8), nn.Linear(8, 3)
        self.drop1 = self.drop2 = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.drop2(self.fc1(self.drop1(x)).relu()))


class Conditional(nn.Module):
    """One dropout stands behind an `if`, another is only a place to keep the number of a call."""

    def __init__(self, deep: bool = False) -> None:
        super().__init__()
        self.deep = deep
        self.fc = nn.Linear(5, 5)
        self.always, self.sometimes, self.holder = nn.Dropout(0.2), nn.Dropout(0.3), nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.always(self.fc(x))
        if self.deep:
            x = self.sometimes(x)
        return F.dropout(x, self.holder.p, self.training)


class SmallVision(nn.Module):
    """A convolutional net with BatchNorm and functional dropout of channels and features."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 8, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(8 * 4 * 4, 16), nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.dropout2d(F.relu(self.conv2(x)), 0.1, self.training)
        x = F.dropout(x.flatten(1), 0.25, self.training)
        return self.fc2(F.dropout(F.relu(self.fc1(x)), 0.5, training=self.training))


class ResNetlet(nn.Module):
    """Residual branches whose one ReLU is used throughout; no dropout at all."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.conv, self.bn = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.relu(self.bn(self.conv(x)) + x)
        x = self.relu(self.conv(x) + x)
        return self.head(x.mean((2, 3)))


class Moving(nn.Module):
    """Its buffers change with each pass, its dropout grows with a step counter, and it keeps what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("average", torch.zeros(4))
        self.seen: list[Tensor] = []
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += 1
        self.calls += 1
        self.average = 0.9 * self.average + 0.1 * x.detach().mean(0)
        self.seen.append(x)
        return F.dropout(self.fc(x - self.average), 0.4, self.training)


class Renormed(nn.Module):
    """Touches its own parameters in a forward pass: an embedding with `max_norm`."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4, max_norm=0.5)
        self.drop = nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.embed(x)).relu_()


class TwoInputs(nn.Module):
    """Takes two arguments and returns a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(2, 4)
        self.drop = nn.Dropout(0.0)

    def forward(self, image: Tensor, table: Tensor) -> dict[str, Tensor]:
        joined = self.left(image) + self.right(table)
        return {"logits": self.drop(joined), "norm": joined.norm()}
