"""A user module's validation run aside, on a copy, so that what the module keeps for its own is not disturbed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from dropsearch.training.logged_steps import batch_size, captured_logs, on_device_of


def measured_on_copy(
    module: Any,
    trainer: Any,
    batches: Any,
    context: Callable[[], AbstractContextManager[Any]],
) -> dict[str, float]:
    """Return what a module's validation logs for other batches than its own, with dropout off.

    Modules gather outputs in lists and in metric objects between the steps of a validation: theirs must not
    see these batches. The copy costs the memory of the weights while it lasts.

    Returns:
        The mean over examples of what `validation_step` logs, and what the end of the epoch logs; empty where
        the module cannot be run like this.
    """
    try:
        twin = copy.deepcopy(module)
        _release(twin)
        twin.__dict__["_trainer"] = trainer
        twin.eval()
        with torch.no_grad():
            return _validated(twin, batches, context)
    except Exception:  # somebody else's code, run where it was not meant to: there is no such curve then
        return {}


def _release(twin: Any) -> None:
    """Take from a copy the hooks by which this package follows the original; those of the user stay."""
    for part in twin.modules():
        for hooks in (part._forward_hooks, part._forward_pre_hooks):
            for number in [number for number, hook in hooks.items() if _is_ours(hook)]:
                del hooks[number]
                part._forward_hooks_always_called.pop(number, None)


def _is_ours(hook: Any) -> bool:
    return str(getattr(hook, "__module__", "")).startswith("dropsearch.")


def _validated(twin: Any, batches: Any, context: Callable[[], AbstractContextManager[Any]]) -> dict[str, float]:
    for part in twin.modules():
        if is_metric(part):
            part.reset()
    totals: dict[str, float] = {}
    metrics: dict[str, Any] = {}
    count = 0
    with captured_logs(twin) as logged:
        twin.on_validation_epoch_start()
        for index, batch in enumerate(batches):
            logged.clear()
            with context():
                twin.validation_step(on_device_of(twin, batch), index)
            size = batch_size(batch)
            count += size
            for name, value in logged.items():
                if is_metric(value):
                    metrics[name] = value
                else:
                    totals[name] = totals.get(name, 0.0) + float(value) * size
        logged.clear()
        twin.on_validation_epoch_end()
        ended = dict(logged)
    found = {name: total / count for name, total in totals.items()}
    found |= {name: float(metric.compute()) for name, metric in metrics.items()}
    return found | {name: float(v.compute() if is_metric(v) else v) for name, v in ended.items()}


def is_metric(part: Any) -> bool:
    """Say whether an object is a metric of torchmetrics, which keeps state between steps."""
    return any(base.__module__.startswith("torchmetrics.") and base.__name__ == "Metric" for base in type(part).__mro__)
