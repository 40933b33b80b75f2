"""Removal of BatchNorm from a user module, and its restoration."""

from __future__ import annotations

from torch import nn

from dropsearch._compat.torch_modules import BatchNormBase, children_of


def batchnorms(module: nn.Module) -> list[str]:
    """Return the names of a module's BatchNorms."""
    return [name for name, part in module.named_modules() if isinstance(part, BatchNormBase)]


Taken = list[tuple[nn.Module, str, nn.Module]]
"""Removed modules: parent, name, module."""


def without_batchnorm(module: nn.Module) -> Taken:
    """Replace each BatchNorm of a module by `nn.Identity`; return what was removed."""
    taken: Taken = []
    for parent in list(module.modules()):
        for name, child in list(children_of(parent).items()):
            if isinstance(child, BatchNormBase):
                taken.append((parent, name, child))
                children_of(parent)[name] = nn.Identity()
    return taken


def put_back(taken: Taken) -> None:
    """Undo what `without_batchnorm` did."""
    for parent, name, child in taken:
        children_of(parent)[name] = child
