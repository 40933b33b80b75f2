"""A training pass of a user module that leaves no trace on it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dropsearch._compat.detached_trainer import DetachedTrainer
from dropsearch._compat.lightning import package_of
from dropsearch.core.batches import examples_in, mapped
from dropsearch.core.errors import InputError, first_cause
from dropsearch.dropout.tools.snapshot import ModuleSnapshot
from dropsearch.dropout.unsupported import is_compiled


def is_lightning(module: nn.Module) -> bool:
    """Whether a module is a LightningModule, of ``lightning`` or of ``pytorch_lightning``."""
    return bool(package_of(module))


class DryRun:
    """Runs training passes of a module on one batch; between passes and at the end all is as it was.

    Parameters, gradients, buffers, modes, hooks, attributes (numbers, tensors and the contents of containers) and
    the state of the random generators are put back. What an attribute's own object keeps inside is not.

    Args:
        module: Any module. Of a LightningModule ``training_step`` runs, of any other the forward.
        batch: As ``training_step`` takes it, or the forward's argument, tuple of arguments, or dict of keyword
            arguments. It is copied for each pass.
        asked_by: The name of the public function, for messages.
    """

    def __init__(self, module: nn.Module, batch: Any, asked_by: str) -> None:
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
                "give the module that torch.compile was given"
            )
        self.module = module
        self.batch = batch
        self.asked_by = asked_by
        self._detached_trainer = DetachedTrainer(module)
        self._kept: ModuleSnapshot | None = None

    @property
    def examples(self) -> int | None:
        """How many examples the batch holds: the length of its first tensor; None where there is none."""
        return examples_in(self.batch)

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Put all back when the context ends."""
        self._kept = self._kept or ModuleSnapshot(self.module)  # what one pass puts back is what the next would keep
        try:
            with torch.enable_grad():
                yield
        finally:
            self._kept.put_back()

    def run(self) -> Any:
        """Run one pass, with gradients, in the mode in which the module is; inside `unchanged()`.

        Returns:
            The loss of a LightningModule, the losses that it gives to ``manual_backward``, or the output of any other
            module.

        Raises:
            InputError: The module cannot run this batch, or there is no loss.
        """
        answer = self.run_through()
        return self._loss(answer) if is_lightning(self.module) else answer

    def run_through(self) -> Any:
        """Run one pass as `run` does, and return whatever the step or the forward returns.

        Raises:
            InputError: The module cannot run this batch.
        """
        try:
            with _uncompiled(self.module):
                if not is_lightning(self.module):
                    return _call_forward(self.module, copied(self.batch))
                self._detached_trainer.set_up()
                return _call_step(self.module, copied(self.batch))
        except InputError:
            raise
        except Exception as error:
            raise InputError(self._what_failed(error)) from error

    def _loss(self, answer: Any) -> Any:
        if self._detached_trainer.losses:
            return tuple(self._detached_trainer.losses)
        loss = answer.get("loss") if isinstance(answer, Mapping) else answer
        if not isinstance(loss, Tensor):
            given = "returns a loss" if self.module.automatic_optimization else "gives its loss to self.manual_backward"
            raise InputError(
                f"{self.asked_by} needs a batch for which {type(self.module).__name__}.training_step {given}, "
                f"got {type(answer).__name__}: else give the network inside and its own inputs"
            )
        return loss

    def _what_failed(self, error: Exception) -> str:
        name = type(self.module).__name__
        if is_lightning(self.module):
            wanted, how = f"{name}.training_step", "give the batch as the Trainer hands it to training_step"
        else:
            wanted, how = f"{name}.forward", "give its argument, a tuple of arguments or a dict of keyword arguments"
        happened = f"{type(error).__name__} ({first_cause(error)[:200]})"
        return f"{self.asked_by} needs a batch that {wanted} takes, got {happened}: {how}"


def _uncompiled(module: nn.Module) -> AbstractContextManager[Any]:
    """Run compiled modules as they were written: inside of compiled code no call can be seen."""
    return torch.compiler.set_stance("force_eager") if is_compiled(module) else nullcontext()


def _call_step(module: Any, batch: Any) -> Any:
    parameters = inspect.signature(module.training_step).parameters.values()
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    spread = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    indexed = len(places) > 1 or spread or any(p.name == "batch_idx" for p in parameters)
    return module.training_step(batch, 0) if indexed else module.training_step(batch)


def _call_forward(module: nn.Module, batch: Any) -> Any:
    """Call a module with what its forward takes: a tuple or dict is spread where the signature allows it."""
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
    """Return a batch whose tensors are copies, for a forward may write into its input."""
    return mapped(batch, lambda x: x.detach().clone().requires_grad_(x.requires_grad))
