"""Base classes of torch's modules that have no public name."""

from __future__ import annotations

from torch.nn.modules.batchnorm import _BatchNorm as BatchNormBase
from torch.nn.modules.dropout import _DropoutNd as DropoutBase

__all__ = ["BatchNormBase", "DropoutBase"]
