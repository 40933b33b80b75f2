"""In which mode a module trains: as it is handed over, unless that is eval mode as a whole."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

AnyModule = TypeVar("AnyModule", bound=nn.Module)


def set_to_train(module: AnyModule) -> AnyModule:
    """Put a module that is in eval mode as a whole in training mode, and return it; any other stays as it is.

    Lightning's fit leaves the modes as it finds them. A module in eval mode would train without dropout; a part in
    eval mode, such as a frozen backbone, was put there by whoever wrote the module.
    """
    return module if module.training else module.train()


def in_precision(module: AnyModule, dtype: torch.dtype) -> AnyModule:
    """Put a module in float64 or float32 as Lightning does, which leaves the states of metric objects; return it."""
    return module.double() if dtype is torch.float64 else module.float()


class Modes:
    """The modes of a module and of its parts, to go back to."""

    def __init__(self, module: nn.Module) -> None:
        self._modes = [(part, part.training) for part in module.modules()]

    def put_back(self) -> None:
        """Put each part in the mode in which it was."""
        for part, training in self._modes:
            part.training = training
