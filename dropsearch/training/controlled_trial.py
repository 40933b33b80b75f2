"""Dropout control of a trial in plain Lightning, from its first step to its last hook."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cache, partial
from types import FunctionType
from typing import Any

import torch
from lightning import LightningModule

from dropsearch._compat.lightning import is_lightning_class
from dropsearch._compat.torch_modes import as_it_is_written
from dropsearch.core.errors import CAUSE, RunError
from dropsearch.core.printable import one_line
from dropsearch.core.records import ARMS, TrialSpec
from dropsearch.dropout.trial_control import TRAINING_PART, TrialControl
from dropsearch.training.batch_transfer import transfer_in_steps
from dropsearch.training.logged_steps import BUILDING, EPOCH_HOOKS, as_defined, wrapped_hook, wrapped_step


def drops_nothing(spec: TrialSpec) -> bool:
    """Return whether a trial must not drop anything: in an arm without dropout, or with all rates 0."""
    return ARMS[spec.arm].dropout == "off" or (bool(spec.rates) and not any(spec.rates.values()))


def require_no_drops(control: TrialControl, spec: TrialSpec) -> None:
    """Raise `RunError` if something dropped in a trial without dropout."""
    if control.off and control.dropped:
        counts = ", ".join(f"{site} ({count} calls)" for site, count in sorted(control.dropped.items()))
        raise RunError(f"trial {spec.key} has no dropout and must not drop, got {counts}: report this as a bug")


@contextmanager
def controlled_copy(module: LightningModule, control: TrialControl) -> Iterator[None]:
    """Control the validation steps of a copy of a trial's module on the training part."""
    if not control.evaluations_draw:
        with control.hidden() if control.evaluations else nullcontext():
            yield
        return
    own = control.of_copy(module)
    step = wrapped_step(module, _evaluating(own), "validation_step")
    with control.hidden(), own.evaluating(TRAINING_PART), own.watching(), transfer_in_steps(module), step:
        yield


@contextmanager
def controlled_trial(module: LightningModule, control: TrialControl, losses: list[torch.Tensor]) -> Iterator[None]:
    """Control every drop of a module within the context, inside and outside of steps."""

    with ExitStack() as stack:
        stack.enter_context(as_it_is_written())
        stack.enter_context(control.whole_trial())
        stack.enter_context(controlled_hooks(control, module))
        stack.enter_context(transfer_in_steps(module))
        stack.enter_context(wrapped_step(module, _controlled(control, losses)))
        for name in ("validation_step", "test_step", "predict_step"):
            stack.enter_context(wrapped_step(module, _evaluating(control), name))
        yield


@contextmanager
def controlled_hooks(control: TrialControl, *owners: Any) -> Iterator[None]:
    """See drops in the hooks defined by the classes of a module or of callbacks, within the context."""
    with ExitStack() as stack:
        for owner, name in ((each, name) for each in owners for name in hooks_of(type(each))):
            seeing = control.seeing
            if name in EPOCH_HOOKS and name not in BUILDING and isinstance(owner, LightningModule):
                seeing = lambda owner=owner, name=name: control.hook(name, owner.current_epoch)  # noqa: E731
            if name == "configure_model":
                seeing = partial(_on_cpu, seeing)
            stack.enter_context(wrapped_hook(owner, name, lambda hook, seeing=seeing: _in_context(hook, seeing)))
        yield


@contextmanager
def _on_cpu(context: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Create layers on the CPU, as constructors do: on a GPU, where Lightning creates them, a seed draws others."""
    with context(), torch.device("cpu"):
        yield


@cache
def hooks_of(kind: type) -> tuple[str, ...]:
    """Return the names of the hooks that a class or a base class outside of Lightning defines."""
    named = (name for name in dir(kind) if name.startswith("on_") or name in _HOOKS)
    owners = ((name, next(base for base in kind.__mro__ if name in vars(base))) for name in named)
    return tuple(
        name for name, base in owners if not is_lightning_class(base) and isinstance(vars(base)[name], FunctionType)
    )


_HOOKS = frozenset(
    {
        "setup", "teardown", "backward", "configure_gradient_clipping", "configure_model", "configure_optimizers",
        "lr_scheduler_step", "optimizer_step", "optimizer_zero_grad",
    }
)  # fmt: skip
"""Hooks outside of steps, in addition to those whose names start with ``on_``."""


def _in_context(function: Callable[..., Any], context: Callable[[], AbstractContextManager[None]]) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        with context():
            return function(*args, **kwargs)

    return run


def _evaluating(control: TrialControl) -> Callable[..., Any]:
    return lambda step: _in_context(step, control.evaluation_step)


def _controlled(control: TrialControl, losses: list[torch.Tensor]) -> Callable[..., Any]:
    def wrap(training_step: Callable[..., Any]) -> Callable[..., Any]:
        # The Trainer's `global_step` does not change while gradients accumulate, so masks would repeat.
        steps = itertools.count()

        module = getattr(as_defined(training_step), "__self__", None)

        def controlled_step(*args: Any, **kwargs: Any) -> Any:
            if module is not None and not module.trainer.training:  # a validation step calls it
                return training_step(*args, **kwargs)
            with control.training_step(next(steps)), _stop_iteration_as_error():
                answer = training_step(*args, **kwargs)
            loss = answer["loss"] if isinstance(answer, Mapping) else answer
            if isinstance(loss, torch.Tensor):
                losses.append(loss.detach())
            return answer

        return controlled_step

    return wrap


@contextmanager
def _stop_iteration_as_error() -> Iterator[None]:
    """Raise RuntimeError instead of StopIteration, which Lightning treats as the end of the epoch."""
    try:
        yield
    except StopIteration as error:
        # `from error` would make contextlib raise the StopIteration again.
        raise RuntimeError(f"a step raised StopIteration: {one_line(str(error), CAUSE)}") from None
