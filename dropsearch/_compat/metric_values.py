"""Value of a torchmetrics metric for one batch, computed without changing the metric's state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

_WRAPPED = ("update", "compute", "forward", "reset")
"""Methods that torchmetrics, or code that records calls, stores on the instance."""


def value_of_batch(metric: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], example: Tensor | None = None) -> Any:
    """Return what `metric(*args, **kwargs)` would return, with gradients; the metric is not changed.

    Under `vmap` the initial states are batched tensors, since metrics add to them in place.

    Args:
        metric: A metric or a `MetricCollection`; for a collection, values are returned by name.
        args: Positional arguments of its `update`.
        kwargs: Keyword arguments of its `update`.
        example: Under `vmap`, any tensor of the current row.
    """
    if not hasattr(metric, "_defaults"):
        return {
            metric._set_name(name): value_of_batch(each, args, each._filter_kwargs(**kwargs), example)
            for name, each in metric.items(keep_base=True, copy_state=False)
        }
    kind: Any = type(metric)
    fresh = kind.__new__(kind)
    fresh.__dict__.update({name: value for name, value in vars(metric).items() if name not in _WRAPPED})
    fresh.__dict__.update({name: _at_start(default, example) for name, default in metric._defaults.items()})
    fresh.__dict__.update(_computed=None, _update_count=1, _to_sync=False, _should_unsync=False)
    kind.update(fresh, *args, **kwargs)
    return _as_scalar(kind.compute(fresh))


def _at_start(default: Any, example: Tensor | None) -> Any:
    if not isinstance(default, Tensor):
        return list(default)
    if example is None:
        return default.detach().clone()
    zero = example.detach().reshape(-1)[:0].sum().type_as(default)  # a zero that is batched under vmap
    start = default.detach().to(example.device)
    return start | zero if not (start.is_floating_point() or start.is_complex()) else start + zero


def _as_scalar(value: Any) -> Any:
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.squeeze()
    return {name: _as_scalar(each) for name, each in value.items()} if isinstance(value, Mapping) else value
