"""BatchNorm taken out of somebody else's module."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def batchnorms(module: nn.Module) -> list[str]:
    """Return the names of a module's BatchNorms."""
    return [name for name, part in module.named_modules() if isinstance(part, _BatchNorm)]


def without_batchnorm(module: nn.Module) -> None:
    """Put an `nn.Identity` where a module has a BatchNorm, in all places at which it is known."""
    for parent in list(module.modules()):
        for name, child in list(parent._modules.items()):
            if isinstance(child, _BatchNorm):
                parent._modules[name] = nn.Identity()
