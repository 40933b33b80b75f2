"""What `torch.distributions` does by private means: checks of values, sampling of gamma and Dirichlet numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, dirichlet


def gamma_slope(alpha: Tensor, values: Tensor) -> Tensor:
    """Return the derivative of gamma numbers with respect to the shape of their distribution."""
    return torch._standard_gamma_grad(alpha, values)  # pyright: ignore[reportPrivateImportUsage]


@contextmanager
def sampled_under_vmap() -> Iterator[None]:
    """Let distributions be made and sampled under `vmap`.

    Their arguments are not checked, since a check looks at values. Dirichlet and Beta numbers are drawn without the
    autograd function around them, which `vmap` cannot run.
    """
    validates, function = Distribution._validate_args, dirichlet._Dirichlet
    Distribution.set_default_validate_args(False)
    stand_in: Any = SimpleNamespace(apply=_sampled)
    dirichlet._Dirichlet = stand_in
    try:
        yield
    finally:
        Distribution.set_default_validate_args(validates)
        dirichlet._Dirichlet = function


def _sampled(concentration: Tensor) -> Tensor:
    if concentration.requires_grad and torch.is_grad_enabled():
        raise NotImplementedError("a Dirichlet or Beta number with a gradient to its concentration is not vectorized")
    return torch._sample_dirichlet(concentration)  # pyright: ignore[reportPrivateImportUsage]
