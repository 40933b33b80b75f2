"""The base class of built-in networks: input shape, configuration, and rates by site name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from dropsearch.models.input_shape import InputShape, Layout
from dropsearch.models.layers import NORMS, Norm

Rates = float | Mapping[str, float]
"""One rate for all sites, or rates by site name; the rate of missing sites is 0."""


class Network(nn.Module):
    """A network that can be rebuilt from its `config`.

    The constructor of a subclass passes its options to this one, adds its layers, and ends with `set_rates`.
    """

    name: ClassVar[str]

    def __init__(
        self, input_shape: Sequence[int], classes: int, layout: Layout | None, norm: Norm, **options: Any
    ) -> None:
        super().__init__()
        require_one_of("norm", norm, NORMS)
        require_positive("classes", classes)
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


def require_one_of(key: str, value: str, known: Iterable[str]) -> None:
    """Raise ValueError unless `value` is one of the known names."""
    names = list(known)
    if value not in names:
        raise ValueError(f"{key} must be one of {', '.join(names)}, got {value!r}")


def require_positive(key: str, *values: int) -> None:
    """Raise ValueError unless each value is a positive integer."""
    for value in values:
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{key} must be a positive integer, got {value!r}")
