"""Private functions of `torch.distributions`: value checks, gamma and Dirichlet sampling."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, dirichlet


def gamma_slope(alpha: Tensor, values: Tensor) -> Tensor:
    """Return the derivative of gamma samples with respect to the shape parameter `alpha`."""
    return torch._standard_gamma_grad(alpha, values)  # pyright: ignore[reportPrivateImportUsage]


@contextmanager
def sampled_under_vmap() -> Iterator[None]:
    """Make distributions usable under `vmap`.

    Argument validation is off, since it reads values. Dirichlet and Beta samples are drawn without their autograd
    function, which `vmap` cannot run.
    """
    validates, function = Distribution._validate_args, dirichlet._Dirichlet
    Distribution.set_default_validate_args(False)
    replacement: Any = SimpleNamespace(apply=_sampled)
    dirichlet._Dirichlet = replacement
    try:
        yield
    finally:
        Distribution.set_default_validate_args(validates)
        dirichlet._Dirichlet = function


def _sampled(concentration: Tensor) -> Tensor:
    if concentration.requires_grad and torch.is_grad_enabled():
        raise NotImplementedError(
            "Dirichlet and Beta samples with a gradient to their concentration are not vectorized"
        )
    return torch._sample_dirichlet(concentration)  # pyright: ignore[reportPrivateImportUsage]
