"""Monte Carlo dropout: a trained module evaluated with dropout on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from dropsearch._compat.torch_modules import NormBase
from dropsearch.core.batches import combined
from dropsearch.core.errors import InputError
from dropsearch.dropout.tools.snapshot import buffers_kept, hidden_modules

# Modules with running statistics, or with weights that are updated in training mode (spectral norm).
_STAYS_IN_EVAL = (NormBase, parametrize.ParametrizationList)


class MCDropout(nn.Module):
    """Evaluates a module with dropout on at every site, BatchNorm in eval mode (Gal & Ghahramani 2016).

    A call runs the module `samples` times with different masks and returns the mean of its outputs, with the same
    structure (including tuples and dicts) and shapes. Tensors without real numbers (classes, booleans) and non-tensors
    are those of the first sample. `draw` returns all samples. ::

        predict = MCDropout(net, samples=50, transform=lambda logits: logits.softmax(-1))
        mean = predict(x)  # [batch, classes]
        spread = predict.draw(x).std(0)  # of [samples, batch, classes]

        with MCDropout(net):  # dropout is on in calls of the module itself
            one_sample = net(x)

    The module's current rates are used. All submodules are in training mode during a sample (so functional dropout with
    ``training=self.training`` is on), except PyTorch's norms with running statistics and parametrized weights. Other
    randomness of training (stochastic depth) is also on. Modes and buffers are restored. Masks come from PyTorch's
    global generator, so ``torch.manual_seed`` reproduces them. Gradients are recorded unless the caller disables them.

    Args:
        module: A module, with or without BatchNorm, in any mode.
        samples: Number of passes per call, at least 1.
        transform: Applied to the output of each pass before the mean. A mean of probabilities differs from the softmax
            of a mean of logits; the paper averages probabilities.

    Raises:
        InputError: `samples` is below 1, or `module` is not a module.
    """

    def __init__(self, module: nn.Module, samples: int = 50, transform: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise InputError(f"MCDropout needs a torch.nn.Module, got {type(module).__name__}")
        if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
            raise InputError(f"samples must be an integer of at least 1, got {samples!r}")
        self.module = module
        self.samples = samples
        self.transform = transform
        self._entered: list[ExitStack] = []

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the mean over the samples, with the structure of the module's output."""
        with _dropping(self.module):
            total = self._sample(*args, **kwargs)
            for _ in range(self.samples - 1):
                total = _joined(torch.add, [total, self._sample(*args, **kwargs)])
        return _joined(lambda x: x / self.samples, [total])

    def draw(self, *args: Any, **kwargs: Any) -> Any:
        """Return all samples, stacked in a new first dimension: `[samples, ...]`."""
        with _dropping(self.module):
            drawn = [self._sample(*args, **kwargs) for _ in range(self.samples)]
        return _joined(lambda *each: torch.stack(each), drawn, real=False)

    def _sample(self, *args: Any, **kwargs: Any) -> Any:
        result = self.module(*args, **kwargs)
        return result if self.transform is None else self.transform(result)

    def __enter__(self) -> MCDropout:
        stack = ExitStack()
        stack.enter_context(_dropping(self.module))
        self._entered.append(stack)
        return self

    def __exit__(self, *_: object) -> None:
        self._entered.pop().close()


@contextmanager
def _dropping(module: nn.Module) -> Iterator[None]:
    """Enable dropout without updating statistics; restore modes and buffers when the context ends."""
    parts = [*module.modules(), *(part for top in hidden_modules(module).values() for part in top.modules())]
    modes = {part: part.training for part in parts}
    still = {each for part in parts if isinstance(part, _STAYS_IN_EVAL) for each in part.modules()}
    try:
        for part in parts:
            part.training = part not in still
        with buffers_kept(parts), _FixedStatistics():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


class _FixedStatistics(TorchFunctionMode):
    """Makes functional norms use their running statistics in any mode."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        learning = {F.batch_norm: "training", F.instance_norm: "use_input_stats"}.get(func)
        if learning is not None and (args[1] if len(args) > 1 else kwargs.get("running_mean")) is not None:
            kwargs = {**dict(zip((learning, "momentum", "eps"), args[5:], strict=False)), **kwargs, learning: False}
            args = args[:5]
        return func(*args, **kwargs)


def _joined(join: Callable[..., Tensor], results: list[Any], *, real: bool = True) -> Any:
    """Join the tensors of results of one structure, with `real` only real and complex ones; others are the first."""

    def leaf(column: list[Any]) -> Any:
        first = column[0]
        is_joined = isinstance(first, Tensor) and (not real or first.is_floating_point() or first.is_complex())
        return join(*column) if is_joined else first

    return combined(results, leaf)
