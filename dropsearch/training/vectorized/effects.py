"""Side effects of steps, recorded under `vmap` and applied to each row afterwards."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dropsearch._compat.lightning import logging_to
from dropsearch._compat.row_values import is_of_row
from dropsearch._compat.torchmetrics import value_of_batch
from dropsearch.core.batches import replaced, tensors
from dropsearch.core.contents import tensors_in
from dropsearch.core.errors import UnsupportedError
from dropsearch.core.global_state import python_states
from dropsearch.training.vectorized.attribute_watch import AttributeWatch
from dropsearch.training.vectorized.by_row import RowArray, RowsDifferError, by_row, set_operators
from dropsearch.training.vectorized.shared_state import SharedState
from dropsearch.training.vectorized.step_logs import reduction_of
from dropsearch.training.vectorized.step_traits import Attribute, NotLoadedError, Path, StepTraits
from dropsearch.training.vectorized.watched_parts import attributes, is_plain, unsupported, watched_parts


@dataclass(frozen=True)
class TensorIndex:
    """Placeholder in an argument for a tensor that differs between rows."""

    index: int
    is_array: bool = False
    """Whether it represents the tensor's NumPy array."""


@dataclass(frozen=True)
class MetricPath:
    """Placeholder in an argument for a metric object, which each row has its own copy of."""

    path: str


class Deferred:
    """Placeholder for the result of a metric. If it is only logged, it is computed when each row's metric is updated.

    Any other use computes the value of the batch immediately from a fresh state, as part of the step, since a metric
    can be the loss. `index` is that of the call among the effects of the step.
    """

    def __init__(self, index: int, compute: Callable[[], Any]) -> None:
        self.index = index
        self.value = functools.cache(compute)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a torch function with the computed values."""
        return func(*_with_values(list(args)), **_with_values(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.value(), name)


def value_of(result: Any) -> Any:
    """Return the computed value of a deferred result; other values unchanged."""
    return result.value() if isinstance(result, Deferred) else result


def _with_values(given: Any) -> Any:
    return replaced(given, value_of)


def _operator(name: str) -> Callable[..., Any]:
    return lambda self, *args: getattr(self.value(), name)(*_with_values(list(args)))


set_operators(Deferred, _operator)


@dataclass(frozen=True)
class Effect:
    """A recorded call of a metric, of `log` or `log_dict`, or a changed attribute."""

    kind: str
    """metric, log, log_dict, attribute, added (to a container), contents, or result (of the step)."""
    path: Path
    """Path of the metric, or of the part with the attribute."""
    name: str
    """Method of the metric, or name of the attribute."""
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def is_mean(self) -> bool:
        """Whether it logs a tensor whose epoch value is the mean over examples."""
        return self._logs(_WITHOUT_EFFECT) and isinstance(self.args[0], TensorIndex)

    @property
    def is_last_or_mean(self) -> bool:
        """Whether it logs a number whose epoch value is the last value or the mean over examples."""
        options = {*_WITHOUT_EFFECT, "on_step", "on_epoch", "batch_size"}
        return self._logs(options) and isinstance(self.args[0], TensorIndex | bool | int | float)

    def _logs(self, options: Set[str]) -> bool:
        differs = any(isinstance(value, TensorIndex) for value in self.kwargs.values())  # a tensor as batch size
        return self.kind == "log" and len(self.args) == 1 and set(self.kwargs) <= options and not differs


_WITHOUT_EFFECT = {"prog_bar", "logger", "sync_dist", "rank_zero_only", "enable_graph"}
"""Options of `self.log` that do not affect the value."""


class EffectRecorder:
    """Records the effects of a module's steps under `vmap`."""

    def __init__(self, module: nn.Module, traits: StepTraits) -> None:
        self._module, self._traits, self._parts = module, traits, watched_parts(module)
        self._shared = SharedState(self._parts)
        self.effects: list[Effect] = []
        """The effects of the last step, in order."""
        self.tensors: list[Tensor] = []
        """The tensors used by these effects."""
        self.changed: Mapping[Attribute, Any] = {}
        """The attributes that the last step changed, with their values."""

    @contextmanager
    def recording(self, *, notes_attributes: bool = True) -> Iterator[None]:
        """Record the effects of the step in this context; the module is restored when it exits.

        With `notes_attributes`, changes of attributes are effects, and those that rows cannot have raise an error.
        """
        self.effects, self.tensors = [], []
        metrics = {path: self._module.get_submodule(path) for path in self._traits.metrics}
        self._paths = {id(metric): path for path, metric in metrics.items()}
        before = {path: dict(vars(metric)) for path, metric in metrics.items()}
        self._held = {path: dict(held) for path, held in before.items()}
        watch, shared = AttributeWatch(self._module, self._parts), self._shared.snapshot()
        states = python_states() if notes_attributes and not self._traits.draws_in_python else None
        changed = None
        try:
            for path, metric in metrics.items():
                vars(metric).update({name: self._recorder(path, name) for name in _METHODS})
            with logging_to(self._module, self._log, self._log_dict):
                yield
            self._shared.require_same(shared)
            self.changed = changed = watch.changed()
            if notes_attributes:
                for path, metric in metrics.items():
                    self._note_settings(path, metric)
                self._require_own_objects()
                self._note_attributes(watch, changed)
            if states is not None and python_states() != states:
                raise UnsupportedError("a step draws from `random` or `numpy.random`, as the first steps did not")
        except (RowsDifferError, NotLoadedError):
            if notes_attributes:
                self._require_not_filled(watch)
            raise
        finally:
            for path, metric in metrics.items():
                vars(metric).clear()
                vars(metric).update(before[path])
            watch.put_back(changed)

    def note_result(self, result: Any) -> None:
        """Record the result of the step."""
        self._add("result", (), "", (result,), {})

    def _recorder(self, path: str, method: str) -> Callable[..., Any]:
        def record(*args: Any, **kwargs: Any) -> Any:
            if method == "compute":
                raise UnsupportedError(f"a step computes the metric {path}, whose state differs between trials")
            metric = self._module.get_submodule(path)
            self._note_settings(path, metric)
            deferred = Deferred(len(self.effects), lambda: _value(metric, args, kwargs))
            self._add("metric", (path,), method, args, kwargs)
            return deferred if method == "forward" else None

        return record

    def _note_settings(self, path: str, metric: nn.Module) -> None:
        """Record what the step has set on a metric, also after its last call, such as the scale of targets."""
        for name, value in vars(metric).items():
            if name not in _METHODS and value is not self._held[path].get(name, self):
                self._held[path][name] = value
                self._add("attribute", (path,), name, (value,), {})

    def _log(self, name: str, value: Any, *args: Any, **options: Any) -> None:
        reduction_of(name, options)  # where the user's line is known
        self._add("log", (), name, (value, *args), options)

    def _log_dict(self, values: Any, *args: Any, **options: Any) -> None:
        if isinstance(values, Mapping) and id(values) not in self._paths:
            for name, value in values.items():
                self._log(name, value, *args, **options)
        else:
            self._add("log_dict", (), "", (values, *args), options)

    def _add(self, kind: str, path: Path, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        packed_args, packed_kwargs = replaced((args, dict(kwargs)), self._packed)
        self.effects.append(Effect(kind, path, name, packed_args, packed_kwargs))

    def _note_attributes(self, watch: AttributeWatch, changed: Mapping[Attribute, Any]) -> None:
        for (path, name), value in changed.items():
            self._traits.attributes.add((path, name))
            self._traits.carried.add((path, name))
            kind, argument = watch.change_of((path, name), value)
            self._add(kind, path, name, (argument,), {})

    def _require_own_objects(self) -> None:
        """Raise `UnsupportedError` if a step keeps tensors in an object that is not among the parts."""
        known = set(map(id, self._parts.values()))
        for path, part in self._parts.items():
            for name, value in attributes(part).items():
                # A new mapping is set in each row as a whole.
                is_new = is_plain(type(value)) and not isinstance(value, Mapping) and id(value) not in known
                if is_new and any(map(is_of_row, tensors_in(list(attributes(value).values())))):
                    message = "a step keeps a tensor in {}, an object that the constructor does not create"
                    raise unsupported(self._module, (path, name), message)

    def _require_not_filled(self, watch: AttributeWatch) -> None:
        """Raise `UnsupportedError` if a step that is taken again has changed a tensor that is not each row's own."""
        for attribute in watch.filled():
            if attribute not in self._traits.carried:
                message = "a step changes {} in place and is taken again, as the first steps did not"
                raise unsupported(self._module, attribute, message)

    def _packed(self, value: Any) -> Any:
        if id(value) in self._paths:
            return MetricPath(self._paths[id(value)])
        if isinstance(value, Tensor | RowArray):
            self.tensors.append((value if isinstance(value, Tensor) else value.tensor).detach())
            return TensorIndex(len(self.tensors) - 1, isinstance(value, RowArray))
        return value


def _value(metric: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return the value of a metric for one batch of each row."""
    compute = functools.partial(value_of_batch, metric)
    try:
        return compute(args, kwargs, next(filter(is_of_row, tensors([args, dict(kwargs)])), None))
    except Exception:  # the metric's code may have no batching rule
        return by_row(compute, (args, dict(kwargs)), {})


_METHODS = ("update", "forward", "compute", "reset")
