"""The state of an array: one flat row of parameters a trial, and stacked buffers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from lightning import LightningModule
from torch import Tensor, nn


def _place(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path), leaf


class StackedState:
    """Parameters, gradients and buffers of `width` modules of one shape.

    `flat` is `[width, P]`. `parameters` are views of it, `[width, *shape]` each, and their gradients views of
    `gradients`, so a step on a row of `flat` is a step on all parameters of a trial. A module that is bound to a
    row has its own parameters and buffers in it: what trains the row trains the module.

    Args:
        template: A module of the shape of all.
        width: How many rows.
        order: The names of all parameters, in the order in which they lie in a row.
        device: Where the rows lie.
        dtype: Of the parameters.
    """

    def __init__(
        self, template: LightningModule, width: int, order: Sequence[str], device: torch.device, dtype: torch.dtype
    ) -> None:
        shapes = {name: parameter.shape for name, parameter in template.named_parameters()}
        trained = {name for name, parameter in template.named_parameters() if parameter.requires_grad}
        size = sum(math.prod(shape) for shape in shapes.values())
        self.width, self.order = width, tuple(order)
        self.flat = torch.zeros(width, size, device=device, dtype=dtype)
        self.gradients = torch.zeros_like(self.flat)
        self.spans: dict[str, tuple[int, int]] = {}
        self.parameters: dict[str, Tensor] = {}
        self._gradients: list[Tensor] = []
        start = 0
        for name in self.order:
            stop = start + math.prod(shapes[name])
            self.spans[name] = (start, stop)
            view = self.flat[:, start:stop].view(width, *shapes[name]).detach()
            self.parameters[name] = view.requires_grad_(name in trained)
            if name in trained:
                self._gradients.append(self.gradients[:, start:stop].view(width, *shapes[name]))
            start = stop
        self.buffers = {
            name: torch.zeros(
                width, *buffer.shape, device=device, dtype=dtype if buffer.is_floating_point() else buffer.dtype
            )
            for name, buffer in template.named_buffers()
        }

    def take_gradients(self, losses: Tensor) -> None:
        """Put the gradient of each row's loss with respect to that row into `gradients`.

        Args:
            losses: `[width]`, row by row a function of that row's parameters alone.
        """
        trained = [parameter for parameter in self.parameters.values() if parameter.requires_grad]
        found = torch.autograd.grad(losses.sum(), trained, allow_unused=True)
        for mine, gradient in zip(self._gradients, found, strict=True):
            mine.zero_() if gradient is None else mine.copy_(gradient)

    def bind(self, row: int, module: LightningModule) -> None:
        """Copy a module's parameters and buffers into a row, and make the module live there.

        The module may lie on another device: all its parameters cross over in one copy.
        """
        with torch.no_grad():
            parameters = dict(module.named_parameters())
            if self.order:
                self.flat[row].copy_(torch.cat([parameters[name].detach().reshape(-1) for name in self.order]))
            for name, parameter in parameters.items():
                mine = self.parameters[name].detach()[row]
                parameter.data = mine
                start, stop = self.spans[name]
                parameter.grad = self.gradients[row, start:stop].view(mine.shape) if parameter.requires_grad else None
            for name, buffer in list(module.named_buffers()):
                mine = self.buffers[name][row]
                mine.copy_(buffer)
                owner, leaf = _place(module, name)
                owner._buffers[leaf] = mine

    def narrowed(self, modules: Sequence[LightningModule]) -> StackedState:
        """Return rows for these modules alone, which move from here to there, in their order."""
        kept = StackedState(modules[0], len(modules), self.order, self.flat.device, self.flat.dtype)
        for row, module in enumerate(modules):
            kept.bind(row, module)
        return kept

    def clip(self, largest: float) -> None:
        """Scale down each row's gradient whose norm is above `largest`, as `torch.nn.utils.clip_grad_norm_`."""
        norms = self.gradients.norm(dim=1, keepdim=True)
        self.gradients.mul_((largest / (norms + 1e-6)).clamp(max=1.0))
