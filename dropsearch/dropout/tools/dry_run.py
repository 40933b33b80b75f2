"""Dry runs: training passes of a user module that leave it unchanged."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dropsearch._compat.detached_trainer import DetachedTrainer, Fit
from dropsearch._compat.lightning import package_of, transferred
from dropsearch._compat.torch_modes import as_it_is_written
from dropsearch.core.batches import examples_in, mapped
from dropsearch.core.errors import InputError, first_cause
from dropsearch.dropout.tools.snapshot import ModuleSnapshot


def is_lightning(module: nn.Module) -> bool:
    """Return whether a module is a LightningModule of ``lightning`` or ``pytorch_lightning``."""
    return bool(package_of(module))


class DryRun:
    """Runs training passes of a module on one batch and restores the module after each pass.

    Parameters, gradients, buffers, modes, hooks, attributes (numbers, tensors and contents of containers) and the state
    of random generators are restored, but not the internal state of other objects in attributes. A LightningModule runs
    its ``training_step``, any other module its forward, on a copy of the batch.
    """

    def __init__(self, module: nn.Module, batch: Any, asked_by: str, fit: Fit | None = None) -> None:
        if not isinstance(module, nn.Module):
            raise InputError(f"{asked_by} needs a torch.nn.Module, got {type(module).__name__}")
        if any(is_lazy(parameter) for parameter in module.parameters()):
            raise InputError(
                f"{asked_by} needs a module whose parameters exist, got {type(module).__name__} with lazy ones: "
                "run one batch through it first"
            )
        inner = dict(module.named_children()).get("_orig_mod")
        if inner is not None and is_lightning(inner):
            raise InputError(
                f"{asked_by} needs a LightningModule that is not compiled, got a compiled {type(inner).__name__}: "
                "pass the module before torch.compile"
            )
        self.module = module
        self.batch = batch
        self.asked_by = asked_by
        self._detached_trainer = DetachedTrainer(module, batch, fit or Fit())
        self._kept: ModuleSnapshot | None = None

    @property
    def examples(self) -> int | None:
        """Batch size: the length of the first tensor, or None without one."""
        return examples_in(self.batch)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Restore the module when the context ends."""
        self._kept = self._kept or ModuleSnapshot(self.module)  # one snapshot serves all passes
        try:
            with torch.enable_grad():
                yield
        finally:
            self._kept.put_back()

    def run(self) -> Any:
        """Run one pass with gradients in the module's current mode, inside `unchanged()`, or raise `InputError`.

        Returns the loss of a LightningModule, those that it passes to ``manual_backward``, or another module's output.
        """
        answer = self.run_through()
        return self._loss(answer) if is_lightning(self.module) else answer

    def run_through(self) -> Any:
        """Run one pass like `run` and return the unprocessed result of the step or the forward."""
        try:
            with as_it_is_written():  # calls inside compiled code are invisible
                if not is_lightning(self.module):
                    return _call_forward(self.module, copied(self.batch))
                self._detached_trainer.set_up()
                return _call_step(self.module, transferred(self.module, copied(self.batch)))
        except InputError:
            raise
        except Exception as error:
            raise InputError(self._what_failed(error)) from error

    def _loss(self, answer: Any) -> Any:
        if self._detached_trainer.losses:
            return tuple(self._detached_trainer.losses)
        loss = answer.get("loss") if isinstance(answer, Mapping) else answer
        if not isinstance(loss, Tensor):
            given = (
                "returns a loss" if self.module.automatic_optimization else "passes its loss to self.manual_backward"
            )
            raise InputError(
                f"{self.asked_by} needs a batch for which {type(self.module).__name__}.training_step {given}, "
                f"got {type(answer).__name__}: otherwise pass the inner network and its inputs"
            )
        return loss

    def _what_failed(self, error: Exception) -> str:
        name = type(self.module).__name__
        if is_lightning(self.module):
            wanted, how = f"{name}.training_step", "pass the batch that the Trainer passes to training_step"
        else:
            wanted, how = f"{name}.forward", "pass its argument, a tuple of arguments or a dict of keyword arguments"
        happened = f"{type(error).__name__} ({first_cause(error)[:200]})"
        return f"{self.asked_by} needs a batch that {wanted} takes, got {happened}: {how}"


def _call_step(module: Any, batch: Any) -> Any:
    parameters = inspect.signature(module.training_step).parameters.values()
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    spread = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    indexed = len(places) > 1 or spread or any(p.name == "batch_idx" for p in parameters)
    return module.training_step(batch, 0) if indexed else module.training_step(batch)


def _call_forward(module: nn.Module, batch: Any) -> Any:
    """Call a module; a tuple or dict is unpacked if the signature of its forward allows it."""
    if isinstance(batch, Mapping) and _fits(module, (), batch):
        return module(**batch)
    if type(batch) is tuple and _fits(module, batch, {}):
        return module(*batch)
    return module(batch)


def _fits(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    try:
        inspect.signature(module.forward).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return False
    return True


def copied(batch: Any) -> Any:
    """Return a batch with copied tensors, since a forward may write to its input."""
    return mapped(batch, lambda x: x.detach().clone().requires_grad_(x.requires_grad))
