"""Running the steps of a LightningModule outside a Trainer, and capturing its logged values."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from lightning import LightningModule
from torch import nn

from dropsearch._compat.lightning import logging_to, transferred
from dropsearch.core.batches import examples_in, mapped

EPOCH_HOOKS = (
    "setup", "configure_model", "on_fit_start", "on_train_start", "on_train_epoch_start", "on_validation_start",
    "on_validation_epoch_start", "on_validation_epoch_end", "on_validation_end", "on_train_epoch_end", "on_train_end",
    "on_fit_end", "teardown",
)  # fmt: skip
"""Hooks of a trial or an epoch, which run once per row, outside of `vmap`."""
BUILDING = ("setup", "configure_model")
"""Those that may build layers, which a fit runs first, like a part of the constructor."""
_POSITIONAL = ("prog_bar", "logger", "on_step", "on_epoch", "reduce_fx")


class Logged(dict[str, Any]):
    """The last logged value of each name, and the options of the log call in `options`."""

    def __init__(self) -> None:
        super().__init__()
        self.options: dict[str, dict[str, Any]] = {}


def log_options(args: tuple[Any, ...], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a call of `LightningModule.log` by name, from the arguments after the value."""
    return {**dict(zip(_POSITIONAL, args, strict=False)), **options}


def runs_aside(module: Any) -> bool:
    """Return whether the class itself, not a base class, declares by `steps_keep_no_state` that steps are stateless."""
    return bool(vars(type(module)).get("steps_keep_no_state"))


@contextmanager
def captured_logs(module: LightningModule) -> Iterator[Logged]:
    """Capture calls of `self.log` and `self.log_dict` instead of passing them to a Trainer."""
    logged = Logged()

    def log(name: str, value: Any, *args: Any, **options: Any) -> None:
        logged[name], logged.options[name] = value, log_options(args, options)

    def log_dict(values: Mapping[str, Any], *args: Any, **options: Any) -> None:
        for name, value in values.items():
            log(name, value, *args, **options)

    with logging_to(module, log, log_dict):
        yield logged


class WrappedStep:
    """Replaces a module's step; copies and pickles of the module contain the original step."""

    def __init__(self, step: Callable[..., Any], wrapper: Callable[..., Any]) -> None:
        self.__wrapped__ = as_defined(step)  # Lightning reads the signature and checks for overrides
        self._wrapper = wrapper

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the wrapper."""
        return self._wrapper(*args, **kwargs)

    def __reduce__(self) -> Any:
        """Exclude the wrapper from copies and checkpoints."""
        step: Any = self.__wrapped__
        return (getattr, (step.__self__, step.__name__)) if hasattr(step, "__self__") else (_itself, (step,))


def as_defined(step: Any) -> Any:
    """Return a step without its wrappers."""
    return step.__wrapped__ if isinstance(step, WrappedStep) else step


def _itself(step: Any) -> Any:
    return step


@contextmanager
def wrapped_step(
    module: LightningModule, wrap: Callable[[Callable[..., Any]], Callable[..., Any]], name: str = "training_step"
) -> Iterator[None]:
    """Replace a step of the module by `wrap(step)` while the context lasts; a missing step stays missing."""
    if getattr(getattr(module, name), "__func__", None) is getattr(LightningModule, name, None):
        yield
        return
    with wrapped_hook(module, name, wrap):
        yield


@contextmanager
def wrapped_hook(module: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """Replace a hook of a module or callback by `wrap(hook)` while the context lasts, including inherited ones."""
    hook, before = getattr(module, name), module.__dict__.get(name)
    module.__dict__[name] = WrappedStep(hook, wrap(hook))
    try:
        yield
    finally:
        del module.__dict__[name]
        if before is not None:
            module.__dict__[name] = before


def call_step(step: Callable[..., Any], batch: Any, batch_idx: int) -> Any:
    """Call a step, with the batch index if it accepts one, under the default dtype that Lightning sets for it.

    The module's own hooks on batches run first.
    """
    function = getattr(step, "__wrapped__", step)
    code, module = getattr(function, "__code__", None), getattr(function, "__self__", None)
    with default_dtype_of(module):
        batch = transferred(module, batch)
        if code is None or code.co_flags & inspect.CO_VARARGS:
            return step(batch, batch_idx)
        arguments = code.co_argcount - (1 if hasattr(step, "__self__") or hasattr(function, "__self__") else 0)
        return step(batch, batch_idx) if arguments > 1 else step(batch)


@contextmanager
def default_dtype_of(module: Any) -> Iterator[None]:
    """Set float64 as default dtype for a module in double precision, as Lightning does for its steps."""
    weights = module.parameters() if isinstance(module, nn.Module) else ()
    before = torch.get_default_dtype()
    dtype = next((each.dtype for each in weights if each.is_floating_point()), before)
    torch.set_default_dtype(torch.float64 if dtype is torch.float64 else before)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def batch_size(batch: Any) -> int:
    """Return the batch size: the length of the first tensor, or 1 without one."""
    return examples_in(batch) or 1


def evaluate(
    module: LightningModule,
    batches: Any,
    step: str = "validation_step",
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> dict[str, float]:
    """Run an evaluation step over all batches with dropout off; return the mean of each metric that it logs.

    Means are over examples. The mode of the module is restored. Steps run in `context`, for example autocast.
    """
    totals: dict[str, torch.Tensor] = {}
    count = 0
    with in_eval_mode(module), torch.no_grad(), captured_logs(module) as logged:
        for index, batch in enumerate(batches):
            size = batch_size(batch)
            with context():
                call_step(getattr(module, step), on_device_of(module, batch), index)
            for name, value in logged.items():
                totals[name] = totals.get(name, 0.0) + torch.as_tensor(value, dtype=torch.float64) * size
            count += size
    return {name: float(total) / count for name, total in totals.items()}


def on_device_of(module: Any, batch: Any) -> Any:
    """Move a batch to a module's device, with real tensors in the type of the first real parameter."""
    parameters = list(module.parameters())
    real = next((each for each in parameters if each.is_floating_point()), torch.zeros(()))
    device = parameters[0].device if parameters else real.device
    return mapped(batch, lambda x: x.to(device, real.dtype if x.is_floating_point() else x.dtype))


AnyModule = TypeVar("AnyModule", bound=nn.Module)


def set_to_train(module: AnyModule) -> AnyModule:
    """Set training mode if the whole module is in eval mode, and return the module; otherwise leave modes unchanged.

    Lightning's fit does not change modes. A module in eval mode would train without dropout, while a submodule in eval
    mode, such as a frozen backbone, is intended by the author.
    """
    return module if module.training else module.train()


def in_precision(module: AnyModule, dtype: torch.dtype) -> AnyModule:
    """Convert a module to float64 or float32 like Lightning, without the states of metric objects; return it."""
    return module.double() if dtype is torch.float64 else module.float()


class Modes:
    """The saved modes of a module and its submodules."""

    def __init__(self, module: nn.Module) -> None:
        self._modes = [(part, part.training) for part in module.modules()]

    def put_back(self) -> None:
        """Restore the mode of each submodule."""
        for part, training in self._modes:
            part.training = training


@contextmanager
def in_eval_mode(module: nn.Module) -> Iterator[None]:
    """Set evaluation mode; restore the mode of each submodule when the context exits."""
    modes = Modes(module)
    module.eval()
    try:
        yield
    finally:
        modes.put_back()
