"""The parsed form of a dropout call, and the description of an operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dropsearch.dropout.rates import Rate

Masker = Callable[[torch.Size, Tensor], Tensor]
"""Maps the shape of a mask and its activations to int16 random bits of that shape."""


class DropCall(NamedTuple):
    """A call of a dropout operation."""

    op: CallOp
    input: Tensor
    rate: float
    training: bool | None
    """None if the function has no such argument; the calling module's mode then decides."""
    mask_shape: torch.Size
    """Shape of the mask, with 1 for dimensions that are dropped as a whole."""
    dropped: Callable[[Rate, Tensor], Any]
    """Maps a rate and int16 bits of `mask_shape` to the result of the call."""
    undropped: Callable[[], Any]
    undropped_row: Callable[[], Any] | None = None
    """The same under ``vmap``, for fused kernels without a batching rule."""

    def drop(self, rate: Rate, bits: Masker) -> Any:
        """Return the result of the call at `rate` with a mask from `bits`."""
        return self.dropped(rate, bits(self.mask_shape, self.input))


@dataclass(frozen=True)
class CallOp:
    """An operation that is one PyTorch function call; the control draws and applies its mask."""

    name: str
    read: Callable[..., DropCall | None]
    """Parses a call from the operation, the function and its arguments; returns None if it cannot drop."""
    rate_at: Callable[[tuple[Any, ...]], tuple[int, str]] = lambda _: (1, "p")
    """Position and name of the rate in the arguments of a call."""
    kind: str = ""
    """Kind of its sites; empty if it depends on the surrounding layers."""

    def at_rate(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], rate: float
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a call with another rate."""
        place, name = self.rate_at(args)
        if len(args) > place:
            return (*args[:place], rate, *args[place + 1 :]), dict(kwargs)
        return args, {**kwargs, name: rate}


class Replaced(float):
    """A replaced rate that stores the original rate of the call in `written`."""

    written: float

    def __new__(cls, rate: float, written: float) -> Replaced:
        """Create it; repeated replacements keep the first original rate."""
        self = super().__new__(cls, rate)
        self.written = getattr(written, "written", written)
        return self
