"""Passes of a trained network with dropout on: Monte Carlo dropout (Gal and Ghahramani 2016)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from dropsearch.dropout.calls import DropCall
from dropsearch.dropout.control import TrialControl
from dropsearch.dropout.montecarlo import MCDropout
from dropsearch.evidence.measures.passes import at_once, batches
from dropsearch.evidence.measures.trained import Trained
from dropsearch.seeds import derived_seed


class Sampling(TrialControl):
    """Drops at the rates of a trained network, with masks that are functions of its seed, of batch and pass.

    Args:
        trained: Whose rates are those of its `spec`.
        batch: The number of the batch: each has masks of its own.
    """

    def __init__(self, trained: Trained, batch: int = 0) -> None:
        seed = derived_seed(trained.spec.seed, "monte carlo", batch)
        super().__init__(trained.module, trained.spec.rates, seed)
        self.module = trained.module
        self.sizes: set[int] = set()
        """Of the masks that were asked for, in activations."""

    @contextmanager
    def dropping(self) -> Iterator[None]:
        """Let the passes drop that are made through `numbered`, all else as in evaluation.

        Modes, buffers and torch's random generators are as they were when the context ends.
        """
        devices = {each.device for each in self.module.parameters() if each.device.type == "cuda"}
        with torch.random.fork_rng(devices), MCDropout(self.module), self.watching():
            yield

    @contextmanager
    def numbered(self, number: int) -> Iterator[None]:
        """Make the pass of this number; inside `dropping`."""
        # What is random and not the control's, such as the dropout inside a fused recurrent kernel, is seeded too.
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


@torch.no_grad()
def averaged(trained: Trained, inputs: Sequence[Tensor], samples: Sequence[int]) -> Tensor:
    """Return logarithms of the probabilities, averaged over passes with dropout on [len(samples), examples, classes].

    The passes of a smaller number of samples are the first of a larger one. The mean is taken in log space, where no
    probability is too small to be told from 0.

    Args:
        trained: The network, which is left as it was.
        inputs: Each [examples, ...].
        samples: Numbers of passes, rising, each at least 1.
    """
    parts = [_averaged_batch(trained, batch, samples, number) for number, batch in enumerate(batches(inputs))]
    return torch.cat(parts, dim=1)


def _averaged_batch(trained: Trained, batch: tuple[Tensor, ...], samples: Sequence[int], number: int) -> Tensor:
    means: list[Tensor] = []
    total = torch.full((), -math.inf)
    control = Sampling(trained, number)
    with control.dropping():
        for count, logits in enumerate(_draws(trained, batch, samples[-1], control), start=1):
            total = torch.logaddexp(total.to(logits.device), logits.double().log_softmax(-1))
            if count in samples:
                means.append(total - math.log(count))
    return torch.stack(means)


def _draws(trained: Trained, batch: tuple[Tensor, ...], samples: int, control: Sampling) -> Iterator[Tensor]:
    """Yield the logits [examples, classes] of each pass.

    The first goes alone; where each example has masks of its own, as many others as fit go through it together.
    """
    yield from _together(trained, batch, 1, control, number=0)
    examples = len(batch[0])
    is_shared = any(size % examples for size in control.sizes)
    count = 1 if is_shared else max(at_once(batch) // examples, 1)
    for number, start in enumerate(range(1, samples, count), start=1):
        yield from _together(trained, batch, min(count, samples - start), control, number)


def _together(trained: Trained, batch: tuple[Tensor, ...], count: int, control: Sampling, number: int) -> Tensor:
    repeated = [each.repeat(count, *(1 for _ in each.shape[1:])) for each in batch]
    with control.numbered(number):
        logits = trained.predict(*repeated)
    return logits.unflatten(0, (count, -1))
