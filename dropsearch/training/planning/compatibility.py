"""Checks whether a user module can be trained vectorized, before any training."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from dropsearch._compat.lightning import is_lightning_class
from dropsearch.core.errors import UnsupportedError
from dropsearch.core.global_rng import generator_states
from dropsearch.core.records import Monitor, TrialSpec
from dropsearch.core.user_errors import described
from dropsearch.training.adapters.validation_copy import is_metric
from dropsearch.training.logged_steps import on_device_of
from dropsearch.training.modes import set_to_train
from dropsearch.training.protocols import RowDataSource

HARMLESS = frozenset(
    {
        "training_step",
        "validation_step",
        "test_step",
        "predict_step",
        "configure_optimizers",
        "forward",
        "on_save_checkpoint",
        "on_load_checkpoint",
        "prepare_data",
        "train_dataloader",
        "val_dataloader",
        "test_dataloader",
        "predict_dataloader",
        "on_test_epoch_start",
        "on_test_epoch_end",
        "on_test_start",
        "on_test_end",
        "on_test_batch_start",
        "on_test_batch_end",
        "on_predict_epoch_start",
        "on_predict_epoch_end",
        "extra_repr",
        "example_input_array",
    }
)
"""Members of a LightningModule that a module may override and still be trained vectorized."""

READABLE = frozenset({"max_epochs", "barebones"})
"""Attributes of the Trainer that a step may read, since they are the same for all rows."""


def incompatibility(
    make_module: Callable[[TrialSpec], Any], data: RowDataSource, spec: TrialSpec, monitor: Monitor, trainer: Any
) -> str:
    """Return why a module cannot be trained vectorized, or an empty string.

    Inspects the class for overridden hooks, manual optimization and metric objects. Then runs one training and one
    validation step, and checks whether they read the epoch or step from the Trainer, use `batch_idx`, draw random
    numbers from Python or NumPy, change attributes of the module, or log with another reduction than the mean.

    Args:
        make_module: Builds a trial's module.
        data: Data in memory.
        spec: Any trial.
        monitor: The monitored metric.
        trainer: A Trainer that answers what a step may read.
    """
    module = make_module(spec)
    return next(_static(module), "") or _dynamic(module, data, monitor, trainer)


def _static(module: Any) -> Iterator[str]:
    if not module.automatic_optimization:
        yield "the module uses manual optimization"
    for name, part in module.named_modules():
        if is_metric(part):
            yield f"{name} is a metric object, which has state between steps"
    for name in _overridden(module):
        yield f"the module overrides {name}"


def _overridden(module: Any) -> Iterator[str]:
    """Yield the names of Lightning's methods that a module overrides, without those of `HARMLESS`."""
    lightning = [base for base in type(module).__mro__ if is_lightning_class(base)]
    for name in dir(type(module)):
        if name.startswith("_") or name in HARMLESS:
            continue
        member = inspect.getattr_static(type(module), name)
        inherited = next((base.__dict__[name] for base in lightning if name in base.__dict__), None)
        if inherited is not None and member is not inherited and callable(inherited):
            yield name


def _dynamic(module: Any, data: RowDataSource, monitor: Monitor, trainer: Any) -> str:
    try:
        batch = on_device_of(module, next(iter(data.train_loader(0))))
        val = on_device_of(module, next(iter(data.val_dataloader())))
        trained = _run_observed(set_to_train(module), "training_step", batch, trainer)
        if trained.incompatibility:
            return trained.incompatibility
        if not isinstance(trained.result, torch.Tensor) and "loss" not in (trained.result or {}):
            return "training_step does not return a loss"
        with torch.no_grad():
            validated = _run_observed(module.eval(), "validation_step", val, trainer)
        return validated.incompatibility or next(_logging_problems(validated.calls, monitor), "")
    except UnsupportedError as error:
        return str(error)
    except Exception as error:  # user code can fail in any way without a real Trainer
        return described(error)


Call = tuple[str, Any, dict[str, Any]]
"""Name, value and options of a call of `self.log`."""


@dataclass
class _Observation:
    """What a step returned and logged, and why it cannot run vectorized."""

    result: Any
    calls: list[Call]
    incompatibility: str


def _run_observed(module: Any, step: str, batch: Any, trainer: Any) -> _Observation:
    read: list[str] = []
    calls: list[Call] = []
    module.__dict__["_trainer"] = _ObservedTrainer(trainer, read)
    module.__dict__["log"] = lambda name, value, *_, **options: calls.append((name, value, options))
    module.__dict__["log_dict"] = lambda values, *_, **options: calls.extend((n, v, options) for n, v in values.items())
    before, states, batch_idx = _attributes(module), generator_states(), _ObservedInt(0)
    method = getattr(module, step)
    takes_batch_idx = len(inspect.signature(method).parameters) > 1
    result: Any = None
    try:
        result = method(batch, batch_idx) if takes_batch_idx else method(batch)
    except Exception:
        if not read:  # otherwise the access to the Trainer is reported below
            raise
    finally:
        del module.__dict__["log"], module.__dict__["log_dict"]
        module.__dict__["_trainer"] = None
    # Dropout draws from torch. Other random operations of torch are rejected by vmap, so `equivalence` reports them.
    drawn = [name for name in ("random", "numpy.random") if generator_states()[name] != states[name]]
    changed = [name for name, value in _attributes(module).items() if before.get(name) != value]
    incompatibility = ""
    if not takes_batch_idx:
        incompatibility = f"{step} has no batch_idx argument"
    elif read:
        incompatibility = f"{step} reads trainer.{read[0]}"
    elif _ObservedInt.used:
        incompatibility = f"{step} uses batch_idx"
    elif drawn:
        incompatibility = f"{step} draws random numbers from {drawn[0]}"
    elif changed:
        incompatibility = f"{step} changes self.{changed[0]}"
    return _Observation(result, calls, incompatibility)


def _logging_problems(calls: list[Call], monitor: Monitor) -> Iterator[str]:
    """Yield why logged values of a validation step cannot be computed as means over examples."""
    step = "validation_step"
    if monitor.name not in {name for name, _, _ in calls}:
        yield f"{step} does not log {monitor.name}"
    for name, value, options in calls:
        if is_metric(value):
            yield f"{step} logs {name} as a metric object"
        elif options.get("reduce_fx", "mean") != "mean" or options.get("on_epoch") is False:
            yield f"{step} logs {name} with another reduction than the mean over the epoch"
        elif not isinstance(value, torch.Tensor):
            yield f"{step} logs {name} as a {type(value).__name__}, not a tensor"


class _ObservedTrainer:
    """A proxy for a Trainer that appends the attributes read from it to `read`."""

    def __init__(self, trainer: Any, read: list[str]) -> None:
        self._trainer, self._read = trainer, read

    def __getattr__(self, name: str) -> Any:
        if name not in READABLE:
            self._read.append(name)
        return getattr(self._trainer, name)


class _ObservedInt(int):
    """An integer for `batch_idx` that sets `_ObservedInt.used` if an operation uses its value."""

    used = False

    def __new__(cls, value: int) -> _ObservedInt:
        _ObservedInt.used = False
        return super().__new__(cls, value)


def _observed_operator(name: str) -> Callable[..., Any]:
    original = getattr(int, name)

    def operator(self: _ObservedInt, *args: Any) -> Any:
        _ObservedInt.used = True
        return original(self, *args)

    return operator


_OPERATORS = (
    "add radd sub rsub mul rmul mod rmod floordiv truediv eq ne lt le gt ge bool index int float str repr format and or"
)
for _name in _OPERATORS.split():
    setattr(_ObservedInt, f"__{_name}__", _observed_operator(f"__{_name}__"))
_ObservedInt.__hash__ = int.__hash__  # type: ignore[method-assign]


def _attributes(module: Any) -> dict[str, Any]:
    """Return a fingerprint of each public attribute of a module and its submodules, by path."""
    fingerprints: dict[str, Any] = {}
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if not name.startswith("_") and name not in ("training", "log", "log_dict", "training_step"):
                fingerprints[f"{path}.{name}" if path else name] = _fingerprint(value)
    return fingerprints


def _fingerprint(value: Any) -> Any:
    """Return a value that changes when an attribute is reassigned or a container grows or shrinks."""
    if isinstance(value, bool | int | float | str):
        return value
    return (id(value), len(value)) if isinstance(value, list | dict | set | tuple) else id(value)
