"""A call of an operation that drops, read into one form, and what an operation is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dropsearch.dropout.rates import Rate

Masker = Callable[[torch.Size, Tensor], Tensor]
"""Given the shape of a mask and the activations it is for, returns int16 random bits of that shape."""


@dataclass(frozen=True)
class DropCall:
    """One call of an operation that drops."""

    op: CallOp
    input: Tensor
    rate: float
    training: bool | None
    """None where the function has no such argument: then the module that calls decides."""
    mask_shape: torch.Size
    """The shape of the mask, with 1 where a dimension is dropped as a whole."""
    dropped: Callable[[Rate, Tensor], Any]
    """Returns what the call returns when it drops at a rate, with a mask made of int16 bits of `mask_shape`."""
    undropped: Callable[[], Any]
    """Returns what the call returns when it drops nothing."""
    undropped_row: Callable[[], Any] | None = None
    """The same under ``vmap``, where it differs: some fused kernels have no batching rule."""

    def drop(self, rate: Rate, bits: Masker) -> Any:
        """Return what the call returns when it drops at `rate` with the mask made of `bits`."""
        return self.dropped(rate, bits(self.mask_shape, self.input))


@dataclass(frozen=True)
class CallOp:
    """An operation that is one call of a PyTorch function: its mask is drawn, and applied, by the control."""

    name: str
    read: Callable[..., DropCall | None]
    """Takes the operation, the function and its arguments; returns None where a call cannot drop."""
    rate_at: Callable[[tuple[Any, ...]], tuple[int, str]] = lambda _: (1, "p")
    """Where in the arguments of a call the rate is: its position and its name."""
    kind: str = ""
    """The kind of its sites; empty where it depends on what stands around."""

    def at_rate(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], rate: float
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments of a call with another rate in them."""
        place, name = self.rate_at(args)
        if len(args) > place:
            return (*args[:place], rate, *args[place + 1 :]), dict(kwargs)
        return args, {**kwargs, name: rate}


class Replaced(float):
    """A rate in the place of the one that a call was written with, which it remembers."""

    written: float

    def __new__(cls, rate: float, written: float) -> Replaced:
        """Make it; of a rate that was replaced before, the first is remembered."""
        self = super().__new__(cls, rate)
        self.written = getattr(written, "written", written)
        return self
