"""A user module's validation run aside, on a copy, so that what the module keeps for its own is not disturbed."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.trainers import make_trainer


def measured_on_copy(module: Any, trainer: Any, batches: Any, settings: TrainerSettings) -> dict[str, float]:
    """Return what a module's validation logs for other batches than its own, with dropout off.

    Lightning itself validates a copy: the means, the stage and the hooks are its own. Modules gather outputs in lists
    and in metric objects between the steps of a validation: theirs must not see these batches. The copy costs the
    memory of the weights while it lasts.

    Args:
        module: As it trains.
        trainer: The Trainer that trains it.
        batches: An iterable of batches.
        settings: What all trials share; the user's own arguments of the Trainer are left out.

    Returns:
        Each metric by its name; empty where the module cannot be run like this.
    """
    given = {"precision": trainer.precision, "max_epochs": trainer.max_epochs, "inference_mode": False}
    try:
        with _Detaching():
            twin = copy.deepcopy(module)
        for part in twin.modules():
            if is_metric(part):
                part.reset()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said of the validation itself, where it matters
            other = make_trainer(twin, dataclasses.replace(settings, trainer=dict), [], **given)
            other.fit_loop.epoch_progress = copy.deepcopy(trainer.fit_loop.epoch_progress)
            other.validate(twin, batches, verbose=False)
        return {name: float(value) for name, value in other.callback_metrics.items()}
    except Exception:  # user code, run where it was not meant to: there is no such curve then
        return {}


class _Detaching(TorchFunctionMode):
    """Lets tensors of a graph be copied: metrics that were updated with a loss hold one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            return memo.setdefault(id(tensor), tensor.detach().clone())
        return func(*args, **(kwargs or {}))


def is_metric(part: Any) -> bool:
    """Say whether an object is a metric of torchmetrics, which keeps state between steps."""
    return any(base.__module__.startswith("torchmetrics.") and base.__name__ == "Metric" for base in type(part).__mro__)
