"""Variance shift: with dropout before BatchNorm, variances differ between training and evaluation."""

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
from dropsearch.stats.intervals import finite_mean

VALUES = {
    "shift_min": Quantity("lowest variance without dropout relative to that with it, of BatchNorms"),
    "shift_mean": Quantity("mean variance without dropout relative to that with it, of BatchNorms"),
    "accuracy_as_trained": Quantity("accuracy with BatchNorm's statistics as trained", higher_is_better=True),
    "accuracy_recalibrated": Quantity("accuracy with BatchNorm's statistics measured again", higher_is_better=True),
    "recalibration_gain": Quantity("accuracy gained by measuring BatchNorm's statistics without dropout"),
}
SERIES = {"shift": Quantity("variance without dropout relative to that with it, by BatchNorm")}

PASSES = 10
"""Number of passes with dropout on; with one pass, the variance of rarely active units is too noisy."""
DEAD = 1e-10
"""Channels whose variance is at most this share of the layer's largest one are excluded."""


def measure(trained: TrainedModel) -> Measured:
    """Measure how the variance of each BatchNorm's input changes when dropout is disabled (Li et al. 2019).

    A layer's shift is the variance of its inputs with dropout off divided by that with dropout on, as the median over
    channels; everything else, including BatchNorm's statistics, is in evaluation mode both times. Dropout increases the
    variance, so a shift is below 1, and 1 without preceding dropout. The series `shift` lists layers in the order of a
    forward pass, from 1; `shift_min` and `shift_mean` are over layers. `accuracy_as_trained` and
    `accuracy_recalibrated` are accuracies on held-out examples before and after BatchNorm's statistics are measured
    again with dropout off; `recalibration_gain` is their difference. Without dropout, shifts are NaN and the gain shows
    how far the statistics lag behind the weights. Without BatchNorm, all values are NaN.
    """
    if not any(isinstance(part, BatchNormBase) for part in trained.module.modules()):
        return Measured(dict.fromkeys(VALUES, math.nan))
    before, after = recalibration(trained)
    gain = after - before
    accuracies = {"accuracy_as_trained": before, "accuracy_recalibrated": after, "recalibration_gain": gain}
    if not has_dropout(trained):
        return Measured({**dict.fromkeys(VALUES, math.nan), **accuracies})
    ratios = list(shifts(trained).values())
    lowest = min(filter(math.isfinite, ratios), default=math.nan)
    values = {"shift_min": lowest, "shift_mean": finite_mean(ratios), **accuracies}
    return Measured(values, {"shift": (range(1, len(ratios) + 1), ratios)} if ratios else {})


def shifts(trained: TrainedModel) -> Mapping[str, float]:
    """Return each BatchNorm's shift by path, in the order of a pass; NaN for constant inputs."""
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
    """Accumulates input statistics of each BatchNorm by channel."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.met: dict[str, list[Tensor]] = {}
        """Number of values, sums and sums of squares `[channels]` by path."""
        self._now: tuple[str, Tensor | None] | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Track which BatchNorm is running while the context lasts, and accumulate its inputs."""
        with ExitStack() as hooks:
            for name, part in self.module.named_modules():
                if isinstance(part, BatchNormBase):
                    hooks.callback(part.register_forward_pre_hook(self._entering(name)).remove)
                    hooks.callback(part.register_forward_hook(self._leaving, always_call=True).remove)
            yield

    def _entering(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: Sequence[Any]) -> None:
            # A BatchNorm over steps also receives the mask of real steps.
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
        """Return the input variance of a BatchNorm by channel."""
        count, total, squares = self.met[name]
        return (squares / count - (total / count).square()).clamp(min=0)


def recalibration(trained: TrainedModel) -> tuple[float, float]:
    """Return the accuracy on held-out examples as trained, and with BatchNorm statistics without dropout."""
    examples = trained.held_out
    before = accuracy(logits_of(trained, examples.inputs), examples.targets)
    with _recalibrated(trained):
        return before, accuracy(logits_of(trained, examples.inputs), examples.targets)


@contextmanager
def _recalibrated(trained: TrainedModel) -> Iterator[None]:
    """Set BatchNorm's statistics to those of its inputs with dropout off until the context ends.

    Copies of the buffers are updated. Only BatchNorms are in training mode: PyTorch's `update_bn` sets the whole module
    to training mode, including dropout, and would measure the old statistics again.
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
