"""Metric objects of torchmetrics: which they are, and their value for one batch, without a change of their state."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from torch import Tensor, nn

_WRAPPED = ("update", "compute", "forward", "reset")
"""Methods that torchmetrics, or code that records calls, stores on the instance."""


@cache
def _fixed() -> frozenset[str]:
    """Return the attributes of a metric, or of a module in one, that no update changes."""
    of_modules = vars(nn.Module()).keys() - {"_parameters", "_buffers", "_modules"}
    return frozenset({*of_modules, *_WRAPPED, "_update_signature", "_defaults", "_persistent", "_reductions"})


@cache
def _bases(kind: type) -> frozenset[str]:
    """Return the names of a class and its base classes that torchmetrics defines."""
    return frozenset(base.__name__ for base in kind.__mro__ if base.__module__.startswith("torchmetrics."))


def is_metric(part: Any) -> bool:
    """Return whether an object is a metric, which keeps state between steps."""
    return "Metric" in _bases(type(part))


def is_metric_or_collection(part: Any) -> bool:
    """Return whether an object is a metric or a `MetricCollection`."""
    return not _bases(type(part)).isdisjoint(("Metric", "MetricCollection"))


def without_states(part: Any, held: Mapping[str, Any]) -> dict[str, Any]:
    """Return those attributes of a metric, or of a module in one, that updates may change; list states are empty."""
    defaults = held.get("_defaults", {})
    return {
        name: [] if name in defaults else value
        for name, value in held.items()
        if name not in _fixed() and not isinstance(defaults.get(name), Tensor)
    }


def last_value(metric: Any) -> Any:
    """Return the value of a metric for its last batch, as Lightning logs it."""
    return metric._forward_cache


def value_of_batch(metric: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], example: Tensor | None = None) -> Any:
    """Return what `metric(*args, **kwargs)` would return, with gradients; the metric is not changed.

    A `MetricCollection` returns values by name. Under `vmap`, `example` is any tensor of the current row: the initial
    states are then batched tensors, since metrics add to them in place.
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
