"""Private attributes of torch without a public equivalent: of modules, optimizers, distributions and CUDA graphs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNormBase
from torch.nn.modules.batchnorm import _NormBase as NormBase
from torch.nn.modules.conv import _ConvNd as ConvBase
from torch.nn.modules.dropout import _DropoutNd as DropoutBase

__all__ = ["BatchNormBase", "ConvBase", "DropoutBase", "NormBase"]  # imported for other files

FORWARD = nn.Module._call_impl.__code__
"""The code that runs the forward of a module, its `self`, with the hooks around it."""


def buffers_of(module: nn.Module) -> dict[str, Tensor | None]:
    """Return the dict of a module's direct buffers; disabled buffers are None.

    Writing to the dict replaces a buffer of any name, including names that `setattr` rejects.
    """
    return module._buffers


def parameters_of(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """Return the dict of a module's direct parameters; disabled parameters are None."""
    return module._parameters


def children_of(module: nn.Module) -> dict[str, nn.Module | None]:
    """Return the dict of a module's direct children, including names that are not attributes, such as "0"."""
    return module._modules


def named_parts(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield what `named_modules` yields, by identity: it would hash modules, which takes long for metric objects."""
    seen: set[int] = set()
    waiting = [("", module)]
    while waiting:
        path, part = waiting.pop()
        if id(part) not in seen:
            seen.add(id(part))
            yield path, part
            prefix = f"{path}." if path else ""
            waiting += [(prefix + name, each) for name, each in reversed(children_of(part).items()) if each is not None]


def forward_hooks_of(module: nn.Module) -> dict[int, Any]:
    """Return the dict of a module's forward hooks; deleting a key removes the hook."""
    return module._forward_hooks


def pre_hooks_of(module: nn.Module) -> dict[int, Any]:
    """Return the dict of a module's forward pre-hooks."""
    return module._forward_pre_hooks


def has_compiled_call(module: nn.Module) -> bool:
    """Return whether `module.compile()` was called."""
    return module._compiled_call_impl is not None


def fused_adam(decoupled: bool) -> Any:
    """Return the operator of `torch.optim.AdamW(fused=True)` if weight decay is decoupled, else that of `Adam`."""
    return torch.ops.aten._fused_adamw_ if decoupled else torch.ops.aten._fused_adam_


def gamma_slope(alpha: Tensor, values: Tensor) -> Tensor:
    """Return the derivative of gamma samples with respect to the shape parameter `alpha`."""
    return torch._standard_gamma_grad(alpha, values)  # pyright: ignore[reportPrivateImportUsage]


def abandon_capture(device: torch.device, pool: tuple[int, int]) -> None:
    """Clean up after a failed capture in PyTorch versions before 2.12.

    Otherwise the allocator stays in capture mode and the default generator refuses to draw.
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    for undo in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        with contextlib.suppress(RuntimeError, AttributeError):
            getattr(torch._C, undo)(index, pool)
    generator = torch.cuda.default_generators[index]
    with contextlib.suppress(RuntimeError):
        generator.graphsafe_set_state(generator.clone_state())
