"""BatchNorm taken out of somebody else's module."""

from __future__ import annotations

from torch import nn

from dropsearch._compat.torch_modules import BatchNormBase


def batchnorms(module: nn.Module) -> list[str]:
    """Return the names of a module's BatchNorms."""
    return [name for name, part in module.named_modules() if isinstance(part, BatchNormBase)]


Taken = list[tuple[nn.Module, str, nn.Module]]
"""What was taken out of a module: of which part, under which name, what."""


def without_batchnorm(module: nn.Module) -> Taken:
    """Put an `nn.Identity` wherever a module knows a BatchNorm; return what was there."""
    taken: Taken = []
    for parent in list(module.modules()):
        for name, child in list(parent._modules.items()):
            if isinstance(child, BatchNormBase):
                taken.append((parent, name, child))
                parent._modules[name] = nn.Identity()
    return taken


def put_back(taken: Taken) -> None:
    """Undo what `without_batchnorm` did."""
    for parent, name, child in taken:
        parent._modules[name] = child
