"""What one training step of one trial computes and moves, noted operation by operation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from parts import Parts
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from dropsearch.dropout.trial_control import TrialControl
from dropsearch.training.logged_steps import captured_logs
from dropsearch.training.vectorized.vmap_modes import VmapRNN

Product = tuple[int, int, int, int]
"""Batch, rows, inner length and columns of a matrix product."""

aten = torch.ops.aten


class Operations(TorchDispatchMode):
    """Notes the matrix products of what runs inside, and the bytes that its operations read and write.

    Each operation counts as reading its tensors from memory and writing its results there, as if nothing stayed in a
    cache; views cost nothing. A convolution counts as the products of its unfolded input with its weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[Product] = Counter()
        self.traffic = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.products.update(_products(func, args, result))
        read, written = list(_tensors((args, kwargs))), list(_tensors(result))
        held = {tensor.untyped_storage().data_ptr() for tensor in read}
        is_view = not func._schema.is_mutable and any(t.untyped_storage().data_ptr() in held for t in written)
        if not is_view:
            self.traffic += sum(tensor.numel() * tensor.element_size() for tensor in (*read, *written))
        return result


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _products(func: Any, args: Any, result: Any) -> Iterator[Product]:
    kind = func.overloadpacket
    if kind in (aten.mm, aten.bmm, aten.addmm, aten.baddbmm):
        left, right = args[-2:]
        yield (math.prod(left.shape[:-2]), *left.shape[-2:], right.shape[-1])
    elif kind is aten.convolution:
        inner = math.prod(args[1].shape[1:])
        yield (1, result.numel() // result.shape[1], inner, result.shape[1])
    elif kind is aten.convolution_backward:
        gradient, inner, mask = args[0], math.prod(args[2].shape[1:]), args[-1]
        places, channels = gradient.numel() // gradient.shape[1], gradient.shape[1]
        if mask[0]:
            yield (1, places, channels, inner)
        if mask[1]:
            yield (1, inner, places, channels)


def step_alone(parts: Parts) -> tuple[int, Operations]:
    """Return the FLOPs of one training step of a sequential trial, and its operations.

    The step is forward, backward and fused AdamW, at the trial's rates with the control's masks; recurrent layers are
    written out as in vectorized training, because a fused kernel hides its products from every counter.
    """
    spec = parts.specs(1)[0]
    loader = parts.source.train_loader(spec.seed)
    module = parts.make_module(spec).to(parts.device).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=spec.lr, fused=True)
    control, batch = TrialControl(module, spec.rates, spec.seed), next(iter(loader))

    def step() -> None:
        with control.training_step(0), VmapRNN():
            loss = module.training_step(batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    with captured_logs(module), control.watching():
        step()  # makes the optimizer's state
        return _counted(step)


def _counted(step: Callable[[], None]) -> tuple[int, Operations]:
    with FlopCounterMode(display=False) as flops, Operations() as operations:
        step()
    return flops.get_total_flops(), operations
