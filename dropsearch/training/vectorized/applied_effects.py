"""Side effects of a vectorized step, applied to each row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dropsearch.core.batches import replaced
from dropsearch.core.contents import CONTAINERS, extend, fill, items_of
from dropsearch.training.logged_steps import default_dtype_of
from dropsearch.training.vectorized.attribute_watch import OldItem
from dropsearch.training.vectorized.effects import Deferred, Effect, MetricPath, TensorIndex
from dropsearch.training.vectorized.step_logs import numbers
from dropsearch.training.vectorized.watched_parts import assign, attributes, part_at

Log = Callable[..., None]
"""Receives a logged name, value and the options of `self.log`."""


def apply(effects: Sequence[Effect], module: nn.Module, tensors: Sequence[Tensor], log: Log) -> Any:
    """Apply the effects of a step to one row; return the result of the step, if recorded.

    `tensors` are the row's part of the effects' tensors; `log` receives the logged values of the row.
    """
    results: dict[int, Any] = {}
    returned, held, own = None, None, list[Any]()

    def unpacked(value: Any) -> Any:
        if isinstance(value, TensorIndex):
            return tensors[value.index].cpu().numpy() if value.is_array else tensors[value.index]
        if isinstance(value, MetricPath):
            return module.get_submodule(value.path)
        if isinstance(value, Deferred):
            return results[value.index]
        if isinstance(value, OldItem):
            return own[value.index]
        return value.copy() if isinstance(value, np.ndarray) else value

    for index, effect in enumerate(effects):
        if effect.kind in ("added", "contents"):
            held = attributes(part_at(module, effect.path))[effect.name]
            own = items_of(held) if effect.kind == "contents" and isinstance(held, CONTAINERS) else []
        args, kwargs = replaced((effect.args, dict(effect.kwargs)), unpacked)
        if effect.kind == "metric":
            metric = part_at(module, effect.path)
            with torch.no_grad(), default_dtype_of(module):
                results[index] = (metric if effect.name == "forward" else getattr(metric, effect.name))(*args, **kwargs)
        elif effect.kind == "attribute":
            assign(part_at(module, effect.path), effect.name, args[0])
        elif effect.kind == "added":
            extend(held, args[0])
        elif effect.kind == "contents":
            fill(held, args[0])
        elif effect.kind == "result":
            returned = args[0]
        elif effect.kind == "log_dict":
            for name, value in args[0].items():
                log(name, value, *args[1:], **kwargs)
        else:
            log(effect.name, *args, **kwargs)
    return returned


def tensors_by_row(effects: Sequence[Effect], found: Sequence[Tensor], rows: int) -> list[list[Any]]:
    """Return the tensors of effects for each row; those that are only logged as numbers, which are fetched together.

    `found` are the tensors of all rows, `[rows, ...]` each.
    """
    logged = {
        effect.args[0].index for effect in effects if effect.kind == "log" and isinstance(effect.args[0], TensorIndex)
    }
    columns = [numbers(tensor, rows) if index in logged else tensor.unbind(0) for index, tensor in enumerate(found)]
    return [[column[row] for column in columns] for row in range(rows)]
