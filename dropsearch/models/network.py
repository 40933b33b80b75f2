"""The base class of built-in networks: layouts of inputs, configuration, and rates by site name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from dropsearch.core.constraints import argument_problems
from dropsearch.core.records.arms import RATES_BY_SITE
from dropsearch.models.layers import Norm, Width

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


Rates = Annotated[float | Mapping[str, float], RATES_BY_SITE]
"""One rate for all sites, or rates by site name; the rate of missing sites is 0."""


class Network(nn.Module):
    """A network that can be rebuilt from its `config`.

    The constructor of a subclass passes its options to this one, which checks them by the constraints in its
    signature, adds its layers, and ends with `set_rates`.

    Raises:
        ValueError: An option is out of range.
    """

    name: ClassVar[str]

    def __init__(
        self, input_shape: Sequence[int], classes: Width, layout: Layout | None, norm: Norm, **options: Any
    ) -> None:
        super().__init__()
        problem = next(argument_problems(type(self), {"norm": norm, "classes": classes, **options}), None)
        if problem:
            raise ValueError(problem)
        self.shape = InputShape.of(input_shape, layout)
        self.classes = classes
        self._options = {"norm": norm, **options}

    @property
    def config(self) -> dict[str, Any]:
        """Name and constructor arguments as plain data, with the current rates."""
        return {
            "name": self.name,
            "input_shape": list(self.shape.sizes),
            "classes": self.classes,
            "layout": self.shape.layout,
            **{key: list(v) if isinstance(v, list | tuple) else v for key, v in self._options.items()},
            "dropout": self.rates,
        }

    @property
    def rates(self) -> dict[str, float]:
        """Rate of each site by its name within the network, in the order of the forward pass."""
        return {name: float(module.p) for name, module in self._sites().items()}

    def set_rates(self, dropout: Rates) -> None:
        """Set the rate of each site.

        Raises:
            ValueError: The network has no site of a given name, or a rate is not in [0, 1].
        """
        sites = self._sites()
        rates = dropout if isinstance(dropout, Mapping) else dict.fromkeys(sites, dropout)
        unknown = [name for name in rates if name not in sites]
        if unknown:
            raise ValueError(f"{self.name} has no dropout site {unknown[0]!r}; its sites are {', '.join(sites)}")
        for name, module in sites.items():
            rate = float(rates.get(name, 0.0))
            if not 0 <= rate <= 1:
                raise ValueError(f"dropout must be in [0, 1], got {rate} for {name!r}")
            module.p = rate

    def _sites(self) -> dict[str, Any]:
        # The dropout modules of torch.nn and `Attention` store their rate as `p`.
        return {name: module for name, module in self.named_modules() if hasattr(module, "p")}
