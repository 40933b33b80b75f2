"""The base class of built-in networks: input shape, configuration, and rates by site name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from torch import nn

from dropsearch.core.constraints import argument_problems
from dropsearch.core.records.arms import RATES_BY_SITE
from dropsearch.models.input_shape import InputShape, Layout
from dropsearch.models.layers import Norm, Width

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
