"""A user module's validation run aside, on a copy, so that what the module keeps for its own is not disturbed."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from typing import Any

from dropsearch._compat.lightning import forget_metric_names
from dropsearch.core.batches import tensors
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
        twin = copy.deepcopy(module, _without_graph(module))
        forget_metric_names(twin)
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


def _without_graph(module: Any) -> dict[int, Any]:
    """Return what stands for the tensors of a graph, which cannot be copied: a metric may keep the loss as it is."""
    held = (tensor for part in module.modules() for tensor in tensors(dict(vars(part))))
    return {id(tensor): tensor.detach().clone() for tensor in held if tensor.grad_fn is not None}


def is_metric(part: Any) -> bool:
    """Say whether an object is a metric of torchmetrics, which keeps state between steps."""
    return any(base.__module__.startswith("torchmetrics.") and base.__name__ == "Metric" for base in type(part).__mro__)
