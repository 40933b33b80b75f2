"""Input layouts of networks: images, signals and sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

Layout = Literal["image", "signal", "sequence"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


@dataclass(frozen=True)
class InputShape:
    """The shape of one example: image ``(C, H, W)``, signal ``(C, L)`` or sequence ``(T, F)``."""

    sizes: tuple[int, ...]
    layout: Layout

    @classmethod
    def of(cls, sizes: Sequence[int], layout: Layout | None = None) -> InputShape:
        """Validate a shape. Without a layout, three sizes are an image and two a signal.

        Raises:
            ValueError: The layout is unknown, or the shape does not have its number of positive sizes.
        """
        chosen = layout or ("image" if len(sizes) == 3 else "signal")
        if chosen not in LAYOUTS:
            raise ValueError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
        count = 3 if chosen == "image" else 2
        if len(sizes) != count or min(sizes) < 1:
            raise ValueError(f"input_shape of layout {chosen} must be {count} positive sizes, got {list(sizes)}")
        return cls(tuple(int(size) for size in sizes), chosen)

    @property
    def numbers(self) -> int:
        """Number of values per example."""
        return math.prod(self.sizes)

    @property
    def channels(self) -> int:
        """Number of channels for a convolution: those of an image or signal, or the features of a sequence."""
        return self.sizes[1] if self.layout == "sequence" else self.sizes[0]

    @property
    def sides(self) -> tuple[int, ...]:
        """Sizes of the dimensions that a convolution slides over: height and width, or length."""
        return (self.sizes[0],) if self.layout == "sequence" else self.sizes[1:]

    @property
    def steps(self) -> int:
        """Number of steps per example that `as_steps` returns."""
        return self.sides[0]

    @property
    def step_features(self) -> int:
        """Number of features per step."""
        return self.numbers // self.steps


def as_steps(x: Tensor, layout: Layout) -> Tensor:
    """Return a batch as steps `[batch, steps, features]`.

    Images `[batch, C, H, W]` are read row by row with ``C * W`` features, signals `[batch, C, L]` sample by sample with
    C features. Sequences `[batch, T, F]` are returned unchanged.
    """
    if layout == "image":
        return x.transpose(1, 2).flatten(2)
    return x.transpose(1, 2) if layout == "signal" else x


def at_least_one(lengths: Tensor | None) -> Tensor | None:
    """Return the lengths with 0 replaced by 1: an empty sequence is read as one step of zeros."""
    return None if lengths is None else lengths.clamp(min=1)


def real_steps(steps: Tensor, lengths: Tensor | None) -> Tensor | None:
    """Return a mask `[batch, steps]` that is False for padding, or None if there are no lengths."""
    if lengths is None:
        return None
    return torch.arange(steps.shape[1], device=steps.device) < lengths.unsqueeze(1)
