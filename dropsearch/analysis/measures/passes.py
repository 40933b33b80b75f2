"""Forward passes of a trained network, with dropout off or on (Gal and Ghahramani 2016)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dropsearch.analysis.measures.protocol import TrainedModel
from dropsearch.core.records import ARMS
from dropsearch.core.seeds import derived_seed
from dropsearch.dropout.ops import DropCall
from dropsearch.dropout.tools.monte_carlo import MCDropout
from dropsearch.dropout.trial_control import TrialControl

TOGETHER = 1500
"""Maximum number of examples in a combined pass; larger ones gain nothing on a CPU."""


@torch.no_grad()
def logits_of(trained: TrainedModel, inputs: Sequence[Tensor]) -> Tensor:
    """Return the logits [examples, classes] with dropout off."""
    return trained.predict(*inputs)


def has_dropout(trained: TrainedModel) -> bool:
    """Return whether a network is of an arm with dropout and has sites, even if all rates are zero."""
    return bool(trained.spec.rates) and ARMS[trained.spec.arm].dropout != "off"


class Sampling(TrialControl):
    """Drops at the rates of a trained network; masks are a function of its seed and the pass number."""

    def __init__(self, trained: TrainedModel) -> None:
        seed = derived_seed(trained.settings.seed, "masks", trained.spec.seed)
        super().__init__(trained.module, trained.spec.rates, seed)
        self.module = trained.module
        self.sizes: set[int] = set()
        """Sizes of the drawn masks, in activations."""

    @contextmanager
    def dropping(self) -> Iterator[None]:
        """Make passes inside `numbered` drop activations; everything else stays in evaluation mode.

        Modes, buffers and torch's random generators are restored when the context ends.
        """
        devices = {each.device for each in self.module.parameters() if each.device.type == "cuda"}
        with torch.no_grad(), torch.random.fork_rng(devices), MCDropout(self.module), self.watching():
            yield

    @contextmanager
    def numbered(self, number: int) -> Iterator[None]:
        """Run pass `number`; only inside `dropping`."""
        # Also seeds random numbers outside the control, such as dropout inside a fused recurrent kernel.
        seed = derived_seed(self.seeded.seed, number)
        torch.default_generator.manual_seed(seed)
        for device in {each.device for each in self.module.parameters() if each.device.type == "cuda"}:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        with self.training_step(number):
            yield

    def on_drop(self, site: str, call: DropCall, original: Callable[..., Tensor]) -> Tensor:
        """Drop at the site's rate."""
        self.sizes.add(math.prod(call.mask_shape))
        return super().on_drop(site, call, original)


def averaged(trained: TrainedModel, inputs: Sequence[Tensor], passes: Sequence[int]) -> Tensor:
    """Return log-probabilities averaged over passes with dropout on, `[len(passes), examples, classes]`.

    Smaller numbers of passes use the first of the larger ones. The mean is computed in log space, so that small
    probabilities do not underflow. The network is not changed.

    Args:
        passes: Increasing numbers of passes, at least 1.
    """
    means: list[Tensor] = []
    control = Sampling(trained)
    total: Tensor | None = None
    with control.dropping():
        for count, logits in enumerate(_sampled(trained, inputs, passes[-1], control), start=1):
            drawn = logits.double().log_softmax(-1)
            total = drawn if total is None else torch.logaddexp(total, drawn)
            if count in passes:
                means.append(total - math.log(count))
    return torch.stack(means)


def _sampled(trained: TrainedModel, inputs: Sequence[Tensor], passes: int, control: Sampling) -> Iterator[Tensor]:
    """Yield the logits [examples, classes] of each pass.

    The first pass is separate. If it shows that each example has its own masks, later passes are combined.
    """
    yield from _together(trained, inputs, 1, control, number=0)
    examples = len(inputs[0])
    is_shared = any(size % examples for size in control.sizes)
    most = 1 if is_shared else max(TOGETHER // examples, 1)
    for number, done in enumerate(range(1, passes, most), start=1):
        yield from _together(trained, inputs, min(most, passes - done), control, number)


def _together(trained: TrainedModel, inputs: Sequence[Tensor], count: int, control: Sampling, number: int) -> Tensor:
    repeated = [each.repeat(count, *(1 for _ in each.shape[1:])) for each in inputs]
    with control.numbered(number):
        logits = trained.predict(*repeated)
    return logits.unflatten(0, (count, -1))


def operations(module: nn.Module, inputs: Sequence[Tensor]) -> float:
    """Return the floating-point operations of one pass, counting matrix products and convolutions.

    PyTorch's counter does not cover recurrent layers; for these, each weight counts two operations per step.

    Args:
        module: The network.
        inputs: Arguments of its ``forward``, `[batch, ...]` each.
    """
    recurrent: list[float] = []

    def count(layer: nn.Module, _: Any, output: Any) -> None:
        states = output[0]
        steps = states.data.shape[0] if isinstance(states, nn.utils.rnn.PackedSequence) else states[..., 0].numel()
        recurrent.append(2.0 * steps * sum(weight.numel() for weight in layer.parameters()))

    with ExitStack() as context, torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.RNNBase):
                context.callback(part.register_forward_hook(count).remove)
        counter = context.enter_context(FlopCounterMode(display=False))
        module(*inputs)
    return float(counter.get_total_flops()) + sum(recurrent)
