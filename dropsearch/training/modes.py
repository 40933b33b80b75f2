"""The training mode of user modules: unchanged, unless the whole module is in eval mode."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def set_to_train(module: AnyModule) -> AnyModule:
    """Set training mode if the whole module is in eval mode, and return the module; otherwise leave modes unchanged.

    Lightning's fit does not change modes. A module in eval mode would train without dropout, while a submodule in eval
    mode, such as a frozen backbone, is intended by the author.
    """
    return module if module.training else module.train()


def in_precision(module: AnyModule, dtype: torch.dtype) -> AnyModule:
    """Convert a module to float64 or float32 like Lightning, without the states of metric objects; return it."""
    return module.double() if dtype is torch.float64 else module.float()


class Modes:
    """The saved modes of a module and its submodules."""

    def __init__(self, module: nn.Module) -> None:
        self._modes = [(part, part.training) for part in module.modules()]

    def put_back(self) -> None:
        """Restore the mode of each submodule."""
        for part, training in self._modes:
            part.training = training
