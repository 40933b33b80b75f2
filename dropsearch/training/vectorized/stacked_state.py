"""Parameters, gradients and buffers of several trials, stacked: one row per trial."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from lightning import LightningModule
from torch import Tensor

from dropsearch._compat.torch_modules import buffers_of
from dropsearch.training.vectorized.held_once import NotHeldOnceError, fingerprint, use


class StackedState:
    """Parameters, gradients and buffers of `width` modules with equal shapes.

    `flat` is `[width, size]`. `parameters` are views of it, `[width, *shape]` each, and their gradients are views of
    `gradients`, so updating a row of `flat` updates all parameters of a trial. The parameters and buffers of a module
    that is bound to a row are views of that row. The shapes are those of a template; `order` names all parameters in
    their order within a row. Frozen parameters and buffers that are equal in all modules are `shared`: rows hold one
    tensor.
    """

    def __init__(
        self,
        template: LightningModule,
        width: int,
        order: Sequence[str],
        device: torch.device,
        dtype: torch.dtype,
        shared: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> None:
        cast = lambda value: value.detach().to(device, dtype if value.is_floating_point() else value.dtype)  # noqa: E731
        self.shared = {name: cast(value) for name, value in shared.items()}
        self._fingerprint = fingerprint(self.shared.values())
        order = [name for name in order if name not in self.shared]
        shapes = {name: parameter.shape for name, parameter in template.named_parameters() if name in order}
        trained = {name for name, parameter in template.named_parameters() if parameter.requires_grad}
        size = sum(math.prod(shape) for shape in shapes.values())
        self.optimized: int | None = None
        """Number of columns, the first ones, whose gradients are clipped: those of the optimizer; None for all."""
        self.width, self.order = width, tuple(order)
        self.flat = torch.zeros(width, size, device=device, dtype=dtype)
        self.gradients = torch.zeros_like(self.flat)
        self.spans: dict[str, tuple[int, int]] = {}
        self.parameters: dict[str, Tensor] = {}
        self._gradients: dict[str, Tensor] = {}
        self.unused: list[frozenset[str]] = [frozenset()] * width
        """Trained parameters of each row without a gradient."""
        self._shown = [*self.unused]
        start = 0
        for name in self.order:
            stop = start + math.prod(shapes[name])
            self.spans[name] = (start, stop)
            view = self.flat[:, start:stop].view(width, *shapes[name]).detach()
            self.parameters[name] = view.requires_grad_(name in trained)
            if name in trained:
                self._gradients[name] = self.gradients[:, start:stop].view(width, *shapes[name])
            start = stop
        self.buffers = {
            name: torch.zeros(
                width, *buffer.shape, device=device, dtype=dtype if buffer.is_floating_point() else buffer.dtype
            )
            for name, buffer in template.named_buffers()
            if name not in self.shared
        }

    def compute_gradients(self, losses: Sequence[tuple[Tensor, RowsPart | None]], *, adds: bool = False) -> None:
        """Compute the gradient of each row's loss with respect to that row, and store it in `gradients`.

        What a loss does not depend on gets no gradient, as in a backward pass: `unused` names it for each row. Losses
        are `[part]` with the part of the rows that they come from, or `[width]` with None for all rows. With `adds`,
        the gradients are added to those stored.
        """
        for found, part in losses:
            parameters = (part or self).parameters
            trained = {name: parameters[name] for name in self._gradients}
            computed = torch.autograd.grad(found.sum(), list(trained.values()), allow_unused=True)
            unused = frozenset(name for name, gradient in zip(trained, computed, strict=True) if gradient is None)
            rows = range(self.width) if part is None else part.index.tolist()
            for row in rows:
                self.unused[row] = self.unused[row] & unused if adds else unused
            for stored, gradient in zip(self._gradients.values(), computed, strict=True):
                given = stored.new_zeros(()) if gradient is None else gradient
                if part is None:
                    stored.add_(given) if adds else stored.copy_(given)
                else:
                    stored[part.index] = stored[part.index] + given if adds else given.expand_as(stored[part.index])

    def show_gradients(self, row: int, module: LightningModule) -> None:
        """Make the gradients of a row those of the module that is bound to it; None for what its loss did not use."""
        if self._shown[row] == self.unused[row]:
            return
        self._shown[row] = self.unused[row]
        parameters = dict(module.named_parameters())
        for name, stored in self._gradients.items():
            parameters[name].grad = None if name in self.unused[row] else stored[row]

    def take_gradients(self, row: int, module: LightningModule) -> None:
        """Take over the gradients that a hook of a bound module put in the place of those of its row, or removed."""
        parameters, removed = dict(module.named_parameters()), set()
        for name, stored in self._gradients.items():
            given, own = parameters[name].grad, stored[row]
            if given is None:
                removed.add(name)
                own.zero_()
            elif given.data_ptr() != own.data_ptr():
                own.copy_(given)
                parameters[name].grad = own
        self.unused[row] = self._shown[row] = frozenset(removed)

    def unused_spans(self, row: int) -> list[tuple[int, int]]:
        """Return the columns of a row's trained parameters without a gradient."""
        return [self.spans[name] for name in self.unused[row]]

    def bind(self, row: int, module: LightningModule) -> None:
        """Copy a module's parameters and buffers into a row, and replace them in the module by views of that row.

        The module may be on another device. Raises `NotHeldOnceError` if a shared tensor differs in it.
        """
        self.unused[row] = self._shown[row] = frozenset()
        with torch.no_grad():
            use(module, self.shared)
            parameters = {name: value for name, value in module.named_parameters() if name not in self.shared}
            if self.order:
                self.flat[row].copy_(torch.cat([parameters[name].detach().reshape(-1) for name in self.order]))
            for name, parameter in parameters.items():
                view = self.parameters[name].detach()[row]
                parameter.data = view
                start, stop = self.spans[name]
                parameter.grad = self.gradients[row, start:stop].view(view.shape) if parameter.requires_grad else None
            for name, buffer in [(n, b) for n, b in module.named_buffers() if n not in self.shared]:
                view = self.buffers[name][row]
                view.copy_(buffer)
                path, _, leaf = name.rpartition(".")
                buffers_of(module.get_submodule(path))[leaf] = view

    def part(self, rows: Sequence[int]) -> RowsPart:
        """Return the parameters and buffers of some rows; gradients flow back to the rows."""
        return RowsPart(self, torch.tensor(rows, device=self.flat.device))

    def resized(self, modules: Sequence[LightningModule]) -> StackedState:
        """Return a new state with one row per given module, and bind the modules to its rows."""
        device, dtype = self.flat.device, self.flat.dtype
        resized = StackedState(modules[0], len(modules), self.order, device, dtype, self.shared)
        resized.optimized = self.optimized
        for row, module in enumerate(modules):
            resized.bind(row, module)
        return resized

    def weights(self, module: LightningModule) -> dict[str, Tensor]:
        """Return the state of a module as it is now; what all rows share is not copied."""
        values = module.state_dict()
        return {name: value if name in self.shared else value.clone() for name, value in values.items()}

    def copies(self, *, parameters: bool) -> list[tuple[Tensor, Tensor]]:
        """Return what a step may change in place, each tensor with a copy; optionally with the parameters."""
        return [(held, held.clone()) for held in (*self.buffers.values(), *([self.flat] if parameters else []))]

    def require_shared_unchanged(self) -> None:
        """Raise `NotHeldOnceError` if a shared tensor has changed."""
        if not torch.equal(fingerprint(self.shared.values()), self._fingerprint):
            raise NotHeldOnceError("a trial changes a tensor that all rows share")

    def clip(self, most: float, by: str = "norm", rows: Sequence[int] | None = None) -> None:
        """Clip the gradients of rows as `torch.nn.utils.clip_grad_norm_` and `clip_grad_value_` do.

        `most` is the largest norm of a row's gradient, or the largest magnitude of its numbers; `by` is norm or value.
        """
        given = self.gradients[:, : self.optimized]
        clipped = given if rows is None else given[list(rows)]
        if by == "value":
            clipped.clamp_(-most, most)
        else:
            norms = clipped.norm(dim=1, keepdim=True)
            clipped.mul_((most / (norms + 1e-6)).clamp(max=1.0))
        if rows is not None:
            given[list(rows)] = clipped


class RowsPart:
    """The parameters and buffers of some rows of a stacked state, by their indices, int64 `[part]`."""

    def __init__(self, state: StackedState, index: Tensor) -> None:
        self._state, self.index, self.shared = state, index, state.shared
        self.parameters = {name: value.index_select(0, index) for name, value in state.parameters.items()}
        self.buffers = {name: value.index_select(0, index) for name, value in state.buffers.items()}

    def put_back(self) -> None:
        """Write the buffers and parameters, which a step may change in place, to the state of all rows."""
        for name, value in self.buffers.items():
            self._state.buffers[name].index_copy_(0, self.index, value)
        for name, value in self.parameters.items():
            self._state.parameters[name].detach().index_copy_(0, self.index, value.detach())
