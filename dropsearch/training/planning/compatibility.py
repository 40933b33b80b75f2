"""What a user module does that the rows of an array could not do, found before anything is trained."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from dropsearch._compat.lightning import is_lightning_class
from dropsearch.core.global_rng import generator_states
from dropsearch.core.records import Monitor, TrialSpec
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
"""Methods of a LightningModule that a module may define and still be trained as a row."""

READABLE = frozenset({"max_epochs", "logger", "loggers", "barebones"})
"""What a step may ask its Trainer: the same for all rows."""


def incompatibility(
    make_module: Callable[[TrialSpec], Any], data: RowDataSource, spec: TrialSpec, monitor: Monitor, trainer: Any
) -> str:
    """Return why a module cannot be trained as a row of an array, or an empty string.

    Looks at the class (hooks, manual optimisation, metric objects), then runs one training and one validation step
    and watches: whether they ask the Trainer for the epoch or the step, use the number of the batch, draw
    random numbers of their own, keep something between steps, or log with more than a mean.

    Args:
        make_module: Builds a trial's module.
        data: Where batches come from.
        spec: Any trial.
        monitor: What trials are chosen by.
        trainer: A Trainer, for what a step may ask of it.
    """
    module = make_module(spec)
    return next(_static(module), "") or _dynamic(module, data, monitor, trainer)


def _static(module: Any) -> Iterator[str]:
    if not module.automatic_optimization:
        yield "manual optimisation"
    for name, part in module.named_modules():
        if is_metric(part):
            yield f"{name} is a metric object that keeps state between steps"
    for name in _overridden(module):
        yield f"the module defines {name}"


def _overridden(module: Any) -> Iterator[str]:
    """Yield the methods of Lightning's own classes that the module defines anew."""
    lightning = [base for base in type(module).__mro__ if is_lightning_class(base)]
    for name in dir(type(module)):
        if name.startswith("_") or name in HARMLESS:
            continue
        mine = inspect.getattr_static(type(module), name)
        theirs = next((base.__dict__[name] for base in lightning if name in base.__dict__), None)
        if theirs is not None and mine is not theirs and callable(theirs):
            yield name


def _dynamic(module: Any, data: RowDataSource, monitor: Monitor, trainer: Any) -> str:
    try:
        batch = on_device_of(module, next(iter(data.train_loader(0))))
        val = on_device_of(module, next(iter(data.val_dataloader())))
        if not isinstance(val, list | tuple) or not all(isinstance(part, torch.Tensor) for part in val):
            return f"a validation batch is a {type(val).__name__}, not a tuple of tensors"
        trained = _watched(set_to_train(module), "training_step", batch, trainer)
        if trained.incompatibility:
            return trained.incompatibility
        if not isinstance(trained.answer, torch.Tensor) and "loss" not in (trained.answer or {}):
            return "training_step does not return a loss"
        with torch.no_grad():
            validated = _watched(module.eval(), "validation_step", val, trainer)
        return validated.incompatibility or next(_unusual(validated.calls, monitor), "")
    except Exception as error:  # somebody else's code: whatever it needs, only a Trainer of its own gives it
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


Call = tuple[str, Any, dict[str, Any]]


@dataclass
class _Watch:
    """What a step did."""

    answer: Any
    calls: list[Call]
    """What it logged: name, value, options."""
    incompatibility: str


def _watched(module: Any, step: str, batch: Any, trainer: Any) -> _Watch:
    asked: list[str] = []
    calls: list[Call] = []
    module.__dict__["_trainer"] = _WatchedTrainer(trainer, asked)
    module.__dict__["log"] = lambda name, value, *_, **options: calls.append((name, value, options))
    module.__dict__["log_dict"] = lambda values, *_, **options: calls.extend((n, v, options) for n, v in values.items())
    before, states, number = _kept(module), generator_states(), _Number(0)
    method = getattr(module, step)
    takes_number = len(inspect.signature(method).parameters) > 1
    answer: Any = None
    try:
        answer = method(batch, number) if takes_number else method(batch)
    except Exception:
        if not asked:  # else its Trainer had no answer for it, which is said below
            raise
    finally:
        del module.__dict__["log"], module.__dict__["log_dict"]
        module.__dict__["_trainer"] = None
    # Dropout itself draws from torch; what else does is refused by `vmap`, and so named by the proof.
    drawn = [name for name in ("random", "numpy.random") if generator_states()[name] != states[name]]
    changed = [name for name, value in _kept(module).items() if before.get(name) != value]
    said = ""
    if not takes_number:
        said = f"{step} takes no batch_idx"
    elif asked:
        said = f"{step} asks its Trainer for {asked[0]}"
    elif _Number.used:
        said = f"{step} uses batch_idx"
    elif drawn:
        said = f"{step} draws random numbers from {drawn[0]}"
    elif changed:
        said = f"{step} keeps something in {changed[0]}"
    return _Watch(answer, calls, said)


def _unusual(calls: list[Call], monitor: Monitor) -> Iterator[str]:
    """Yield what a validation step logs in another way than by its mean over examples."""
    step = "validation_step"
    if monitor.name not in {name for name, _, _ in calls}:
        yield f"{step} does not log {monitor.name}"
    for name, value, options in calls:
        if is_metric(value):
            yield f"{step} logs {name} as a metric object"
        elif options.get("reduce_fx", "mean") != "mean" or options.get("on_epoch") is False:
            yield f"{step} logs {name} in another way than by its mean"
        elif not isinstance(value, torch.Tensor):
            yield f"{step} logs {name} as a {type(value).__name__}, not a tensor"


class _WatchedTrainer:
    """A Trainer that notes what it is asked for."""

    def __init__(self, trainer: Any, asked: list[str]) -> None:
        self._trainer, self._asked = trainer, asked

    def __getattr__(self, name: str) -> Any:
        if name not in READABLE:
            self._asked.append(name)
        return getattr(self._trainer, name)


class _Number(int):
    """The number of a batch that notes whether it is used."""

    used = False

    def __new__(cls, value: int) -> _Number:
        _Number.used = False
        return super().__new__(cls, value)


def _noting(name: str) -> Callable[..., Any]:
    original = getattr(int, name)

    def noted(self: _Number, *args: Any) -> Any:
        _Number.used = True
        return original(self, *args)

    return noted


_OPERATORS = (
    "add radd sub rsub mul rmul mod rmod floordiv truediv eq ne lt le gt ge bool index int float str repr format and or"
)
for _name in _OPERATORS.split():
    setattr(_Number, f"__{_name}__", _noting(f"__{_name}__"))
_Number.__hash__ = int.__hash__  # type: ignore[method-assign]


def _kept(module: Any) -> dict[str, Any]:
    """Return what the attributes of all parts of a module hold, as far as a change can be seen from outside."""
    found: dict[str, Any] = {}
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if not name.startswith("_") and name not in ("training", "log", "log_dict", "training_step"):
                found[f"{path}.{name}" if path else name] = _fingerprint(value)
    return found


def _fingerprint(value: Any) -> Any:
    if isinstance(value, bool | int | float | str):
        return value
    return (id(value), len(value)) if isinstance(value, list | dict | set | tuple) else id(value)
