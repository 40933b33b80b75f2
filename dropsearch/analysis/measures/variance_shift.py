"""Dropout in front of BatchNorm: the variance that BatchNorm learnt is not that which it meets in evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dropsearch._compat.torch_modules import BatchNormBase, buffers_of
from dropsearch.analysis.measures.passes import Sampling, has_dropout, logits_of
from dropsearch.analysis.measures.protocol import Measured, TrainedModel
from dropsearch.analysis.measures.scores import accuracy
from dropsearch.core.records import Quantity

VALUES = {
    "shift_min": Quantity("least variance without dropout relative to that with it, of BatchNorms"),
    "shift_mean": Quantity("mean variance without dropout relative to that with it, of BatchNorms"),
    "accuracy_as_trained": Quantity("accuracy with BatchNorm's statistics as trained", higher_is_better=True),
    "accuracy_recalibrated": Quantity("accuracy with BatchNorm's statistics measured again", higher_is_better=True),
    "recalibration_gain": Quantity("accuracy gained by measuring BatchNorm's statistics without dropout"),
}
SERIES = {"shift": Quantity("variance without dropout relative to that with it, by BatchNorm")}

PASSES = 10
"""With dropout on, each with masks of its own: one alone leaves a rarely active unit's variance to chance."""
DEAD = 1e-10
"""Channels whose variance is at most this share of the layer's greatest are not compared."""


def measure(trained: TrainedModel) -> Measured:
    """Measure how the variance in front of each BatchNorm changes as dropout is switched off (Li et al. 2019).

    A layer's shift is the variance of its inputs with dropout off divided by that with dropout on, the median over its
    channels; all else, BatchNorm's own statistics included, is as in evaluation both times. Values behind dropout have
    a greater variance while it is on, so a shift is below 1, and 1 where no dropout stands in front. The series
    `shift` has the layers in the order of a forward pass, counted from 1; `shift_min` and `shift_mean` are over
    layers. `accuracy_as_trained` and `accuracy_recalibrated` are the accuracies on held-out examples before and after
    BatchNorm's statistics were measured again with dropout off, and `recalibration_gain` what that gained. Shifts are
    NaN without dropout, where the gain is that of statistics that lag behind the weights; all are without BatchNorm.
    """
    if not any(isinstance(part, BatchNormBase) for part in trained.module.modules()):
        return Measured(dict.fromkeys(VALUES, math.nan))
    before, after = recalibration(trained)
    accuracies = {
        "accuracy_as_trained": before,
        "accuracy_recalibrated": after,
        "recalibration_gain": after - before,
    }
    if not has_dropout(trained):
        return Measured({**dict.fromkeys(VALUES, math.nan), **accuracies})
    ratios = list(shifts(trained).values())
    known = [ratio for ratio in ratios if math.isfinite(ratio)]
    values = {
        "shift_min": min(known, default=math.nan),
        "shift_mean": sum(known) / len(known) if known else math.nan,
        **accuracies,
    }
    return Measured(values, {"shift": (range(1, len(ratios) + 1), ratios)} if ratios else {})


def shifts(trained: TrainedModel) -> Mapping[str, float]:
    """Return each BatchNorm's shift by its path, in the order in which a pass meets them; NaN where all is constant."""
    off, on = _Variances(trained.module), _Variances(trained.module)
    with off.watching(), off:
        logits_of(trained, trained.train.inputs)
    control = Sampling(trained)
    with on.watching(), control.dropping():
        for number in range(PASSES):
            with control.numbered(number), on:
                trained.predict(*trained.train.inputs)
    return {name: _ratio(off.of(name), on.of(name)) for name in off.met}


def _ratio(off: Tensor, on: Tensor) -> float:
    live = on > DEAD * on.max()
    return float((off[live] / on[live]).median()) if live.any() else math.nan


class _Variances(TorchFunctionMode):
    """Sums up what each BatchNorm of a module is given, channel by channel."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.met: dict[str, list[Tensor]] = {}
        """Number of values, their sums and sums of squares [channels], by path."""
        self._now: tuple[str, Tensor | None] | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Know which BatchNorm runs while the context lasts, and sum up while this mode is on beside it."""
        with ExitStack() as hooks:
            for name, part in self.module.named_modules():
                if isinstance(part, BatchNormBase):
                    hooks.callback(part.register_forward_pre_hook(self._entering(name)).remove)
                    hooks.callback(part.register_forward_hook(self._leaving, always_call=True).remove)
            yield

    def _entering(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: Sequence[Any]) -> None:
            # A BatchNorm over steps is told, beside the steps, which of them are no padding.
            masks = [each for each in args[1:] if isinstance(each, Tensor) and each.dtype == torch.bool]
            self._now = name, masks[0] if masks else None

        return hook

    def _leaving(self, *_: Any) -> None:
        self._now = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm and self._now is not None:
            self._add(*self._now, args[0] if args else kwargs["input"])
        return func(*args, **kwargs)

    def _add(self, name: str, real: Tensor | None, x: Tensor) -> None:
        if real is not None:
            x = x[real.flatten()]
        values = x.detach().double().transpose(0, 1).flatten(1)
        sums = [torch.tensor(float(values.shape[1])), values.sum(1), values.square().sum(1)]
        before = self.met.get(name)
        self.met[name] = sums if before is None else [a + b for a, b in zip(before, sums, strict=True)]

    def of(self, name: str) -> Tensor:
        """Return the variance of each channel of a BatchNorm's inputs."""
        count, total, squares = self.met[name]
        return (squares / count - (total / count).square()).clamp(min=0)


def recalibration(trained: TrainedModel) -> tuple[float, float]:
    """Return the accuracy on held-out examples as trained, and with BatchNorm's statistics those without dropout."""
    examples = trained.held_out
    before = accuracy(logits_of(trained, examples.inputs), examples.targets)
    with _recalibrated(trained):
        return before, accuracy(logits_of(trained, examples.inputs), examples.targets)


@contextmanager
def _recalibrated(trained: TrainedModel) -> Iterator[None]:
    """Give BatchNorms the statistics of their inputs with dropout off, until the context ends.

    They are written into copies of the buffers. Only BatchNorms are in training mode for it: PyTorch's `update_bn`
    puts the whole module there, dropout too, and would measure the same statistics again.
    """
    norms = [part for part in trained.module.modules() if isinstance(part, BatchNormBase) and part.track_running_stats]
    held = [(norm, dict(buffers_of(norm)), norm.momentum, norm.training) for norm in norms]
    try:
        for norm in norms:
            buffers_of(norm).update({name: each.clone() for name, each in buffers_of(norm).items() if each is not None})
            norm.reset_running_stats()
            norm.momentum, norm.training = None, True
        logits_of(trained, trained.train.inputs)
        for norm, _, momentum, training in held:
            norm.momentum, norm.training = momentum, training
        yield
    finally:
        for norm, buffers, momentum, training in held:
            buffers_of(norm).update(buffers)
            norm.momentum, norm.training = momentum, training
