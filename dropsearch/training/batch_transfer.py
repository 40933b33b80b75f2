"""The hooks by which a LightningModule changes a batch on its way, as a part of the step that gets the batch.

Lightning calls them just before the step. Within it, their random numbers are the step's, and rows run them together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

from lightning import LightningModule

from dropsearch._compat.lightning import PREFIXES, is_lightning_class, transfer_hooks, transferred
from dropsearch.datasets.user_parts import HOOKS
from dropsearch.training.logged_steps import wrapped_hook, wrapped_step

_SEEING_BATCHES = ("on_train_batch", "on_validation_batch", "transfer_batch")
"""How the hooks begin that get the batch too, or replace a part of its way."""
_STEPS = ("training_step", "validation_step", "test_step", "predict_step")


@cache
def are_in_steps(kind: type, data_module: type = object) -> bool:
    """Return whether a class has such hooks, and they may be a part of its steps.

    Nothing between sees the batch, and the data module has no such hooks, which a Trainer prefers or calls between.
    """
    if any(name in vars(base) for base in data_module.__mro__ if not is_lightning_class(base) for name in HOOKS):
        return False
    seeing = (name for name in dir(kind) if name.startswith(_SEEING_BATCHES))
    owners = (next(base for base in kind.__mro__ if name in vars(base)) for name in seeing)
    return bool(transfer_hooks(kind)) and all(map(is_lightning_class, owners))


@contextmanager
def transfer_in_steps(module: LightningModule) -> Iterator[None]:
    """Run the hooks of a module in its steps within the context, unless they are left to its Trainer."""
    if not are_in_steps(type(module)):
        yield
        return
    is_running = False

    def wrap(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal is_running
            if is_running or _are_left(module):  # one step calls another, in its own way
                return step(*args, **kwargs)
            is_running = True
            try:
                return step(transferred(module, args[0], *args[2:3]), *args[1:], **kwargs)
            finally:
                is_running = False

        return run

    def later(hook: Callable[..., Any]) -> Callable[..., Any]:
        return lambda batch, *args: hook(batch, *args) if _are_left(module) else batch

    with ExitStack() as stack:
        for name in transfer_hooks(type(module)):
            stack.enter_context(wrapped_hook(module, name, later))
        for name in _STEPS:
            stack.enter_context(wrapped_step(module, wrap, name))
        yield


def _are_left(module: LightningModule) -> bool:
    """Return whether the Trainer calls the hooks of a module, since callbacks or its data module get batches too."""
    trainer: Any = module.trainer
    known = (*PREFIXES, "dropsearch.")
    has_callbacks = any(not type(each).__module__.startswith(known) for each in trainer.callbacks)
    return has_callbacks or not are_in_steps(type(module), type(trainer.datamodule))
