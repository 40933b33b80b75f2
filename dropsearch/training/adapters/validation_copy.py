"""A user module's validation run aside, on a copy, so that what the module keeps for its own is not disturbed."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from dropsearch._compat.lightning import forget_metric_names
from dropsearch.core.batches import tensors
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.trainers import make_trainer


class ValidationAside:
    """Runs a user module's validation on other batches than its own, with dropout off. There is one for each trial.

    Lightning itself validates a copy: the means, the stage and the hooks are its own. Modules gather outputs in lists
    and in metric objects between the steps of a validation: theirs must not see these batches. On a CPU the copy shares
    the weights; elsewhere it costs their memory while it lasts, since a Trainer moves what it has validated to the CPU.

    Args:
        settings: What all trials share; the user's own arguments of the Trainer are left out.
    """

    def __init__(self, settings: TrainerSettings) -> None:
        self._settings = dataclasses.replace(settings, trainer=dict)
        self._trainer: Any = None

    def measure(
        self,
        module: Any,
        trainer: Any,
        batches: Any,
        controlled: Callable[[Any], AbstractContextManager[None]] = nullcontext,
    ) -> dict[str, float]:
        """Return what the module logs, by name; empty where it cannot be run like this.

        Args:
            module: As it trains.
            trainer: The Trainer that trains it.
            batches: An iterable of batches.
            controlled: Takes the copy; returns the context in which it is validated.
        """
        try:
            twin = copy.deepcopy(module, _shared(module))
            forget_metric_names(twin)
            for part in twin.modules():
                if is_metric(part):
                    part.reset()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # said of the validation itself, where it matters
                other = self._made(twin, trainer)
                other.fit_loop.epoch_progress = copy.deepcopy(trainer.fit_loop.epoch_progress)
                with controlled(twin):
                    other.validate(twin, batches, verbose=False)
            return {name: float(value) for name, value in other.callback_metrics.items()}
        except Exception:  # user code, run where it was not meant to: there is no such curve then
            return {}

    def _made(self, twin: Any, trainer: Any) -> Any:
        if self._trainer is None:
            given = {"precision": trainer.precision, "max_epochs": trainer.max_epochs, "inference_mode": False}
            self._trainer = make_trainer(twin, self._settings, [], **given)
        return self._trainer


def _shared(module: Any) -> dict[int, Any]:
    """Return what a copy of a module has in the place of tensors, by their identity.

    These are the weights themselves where nothing moves them, and copies of tensors of a graph, which cannot be copied
    with the rest: a metric may keep the loss as it is.
    """
    held = (tensor for part in module.modules() for tensor in tensors(dict(vars(part))))
    copied = {id(tensor): tensor.detach().clone() for tensor in held if tensor.grad_fn is not None}
    return {**copied, **{id(weight): weight for weight in module.parameters() if weight.device.type == "cpu"}}


def is_metric(part: Any) -> bool:
    """Return whether an object is a metric of torchmetrics, which keeps state between steps."""
    return is_of_torchmetrics(part, "Metric")


def is_of_torchmetrics(part: Any, name: str) -> bool:
    """Return whether an object's class is, or derives from, the class of torchmetrics with this name."""
    return any(base.__module__.startswith("torchmetrics.") and base.__name__ == name for base in type(part).__mro__)
