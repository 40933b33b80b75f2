"""The effect of a rate on the result of a training pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from dropsearch.core.batches import tensors
from dropsearch.core.errors import InputError
from dropsearch.core.global_state import reseed
from dropsearch.dropout.tools.dry_run import DryRun
from dropsearch.dropout.trial_control import TrialControl

HIGH = 0.9

_TRIES = 3
"""Number of seeds to try, since a mask may keep all of very few activations by chance."""


class RateEffect:
    """Compares training passes of a module at different rates of its sites, which are 0 unless given.

    All other random numbers of a pass are drawn from the same seeds. With `train`, training mode is set first;
    otherwise the module keeps its modes.
    """

    def __init__(self, dry_run: DryRun, sites: Iterable[str], *, train: bool) -> None:
        self.dry_run = dry_run
        self.sites = tuple(sites)
        self.train = train
        self._undropped = self._result({})
        # A GPU may sum in a different order each time; such differences are no effect of a rate.
        self._noise = largest_difference(self._undropped, self._result({}))

    def alive(self, site: str) -> bool:
        """Return whether a site's rate changes the result."""
        return any(self._differs(self._undropped, self._result({site: HIGH}, seed)) for seed in range(_TRIES))

    def reaches_training(self, site: str) -> bool:
        """Return whether a site's rate changes the gradient of any trainable parameter."""
        seeds = range(_TRIES)
        return any(
            self._differs(*(self._result({site: rate}, seed, of=_gradients) for rate in (0.0, HIGH))) for seed in seeds
        )

    def _differs(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
        return largest_difference(a, b) > 2 * self._noise

    def _result(
        self,
        rates: Mapping[str, float],
        seed: int = 0,
        of: Callable[[nn.Module, list[Tensor]], list[Tensor]] | None = None,
    ) -> list[Tensor]:
        module = self.dry_run.module
        control = TrialControl(module, {**dict.fromkeys(self.sites, 0.0), **rates}, seed, keys=False)
        with self.dry_run.unchanged():
            if self.train:
                module.train()
            reseed(0)
            with control.watching(), control.training_step(0):
                result = self.dry_run.run()
            found = list(tensors(result))
            if not found:
                raise InputError(
                    f"{self.dry_run.asked_by} needs a module that returns tensors, or containers of tensors, "
                    f"got {type(result).__name__} from {type(module).__name__}"
                )
            return [each.detach().clone() for each in (of(module, found) if of else found)]


def _gradients(module: nn.Module, results: list[Tensor]) -> list[Tensor]:
    """Return the gradients of the loss, or of the sum of the outputs, for all trainable parameters."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    total = sum((each.abs() if each.is_complex() else each).sum() for each in results if each.requires_grad)
    if not isinstance(total, Tensor):  # manual optimization has already run backward
        given: Sequence[Tensor | None] = [parameter.grad for parameter in trained]
    else:
        given = torch.autograd.grad(total, trained, allow_unused=True) if trained else []
    return [torch.zeros(()) if each is None else each for each in given]


def largest_difference(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Return the largest absolute difference of two results; infinite if their structures differ."""
    if len(a) != len(b) or any(x.shape != y.shape for x, y in zip(a, b, strict=True)):
        return math.inf
    return max((_difference(x, y) for x, y in zip(a, b, strict=True)), default=0.0)


def _difference(x: Tensor, y: Tensor) -> float:
    if not x.numel() or torch.equal(x, y):
        return 0.0
    wide = torch.complex128 if x.is_complex() else torch.float64
    x, y = x.to(wide), y.to(wide)
    # Equal infinities, or NaN in both, are no difference; NaN in only one is.
    apart = torch.where((x == y) | (x.isnan() & y.isnan()), 0.0, (x - y).abs())
    return float(apart.nan_to_num(nan=math.inf).max())
