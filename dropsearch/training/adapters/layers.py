"""Layers of user modules: built in hooks, with the weights of the first step; and BatchNorms, which can be removed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dropsearch._compat.lightning import is_lightning_class
from dropsearch._compat.torch_modules import BatchNormBase, children_of
from dropsearch.core.errors import InputError
from dropsearch.core.user_errors import described
from dropsearch.training.adapters.probe import for_a_look, trained_for
from dropsearch.training.logged_steps import BUILDING, wrapped_step
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.trainers import make_trainer, quiet_lightning

STARTS = ("on_fit_start", "on_train_start", "on_train_epoch_start", "on_train_batch_start")
"""Hooks that may set weights before the first training step."""


def builds_in_hooks(module: Any) -> bool:
    """Return whether a module overrides a hook that may build layers."""
    return _overrides(module, BUILDING)


def build_in_hooks(module: Any, dtype: torch.dtype = torch.float32) -> None:
    """Run the hooks that build layers; those of `configure_model` are created in `dtype`, as Lightning does."""
    before = torch.get_default_dtype()
    module.setup("fit")
    torch.set_default_dtype(dtype)
    try:
        module.configure_model()
    finally:
        torch.set_default_dtype(before)


def _overrides(module: Any, hooks: tuple[str, ...]) -> bool:
    owners = (next(kind for kind in type(module).__mro__ if hook in kind.__dict__) for hook in hooks)
    return not all(map(is_lightning_class, owners))


def with_layers(module: Any, data: Mapping[str, Any], settings: TrainerSettings) -> Any:
    """Return a new module after the hooks that build layers, as in a fit on this data, or raise `InputError`."""
    if not builds_in_hooks(module):
        return module
    with quiet_lightning():
        trainer = make_trainer(module, for_a_look(settings), [], max_epochs=settings.max_epochs)
    trainer.datamodule = data.get("datamodule")
    module.trainer = trainer
    try:
        build_in_hooks(module)
    except Exception as error:
        raise InputError(
            f"model={type(module).__name__} must build its layers in setup and configure_model, but fails: "
            f"{described(error)}"
        ) from error
    finally:
        module.__dict__["_trainer"] = None
    return module


def weights_at_start(module: Any, data: Mapping[str, Any], settings: TrainerSettings) -> dict[str, Tensor]:
    """Return the weights with which a new module begins its first training step, by name.

    A module with hooks that may set weights is changed: it trains for one batch.
    """
    if not _overrides(module, STARTS):
        return _weights(with_layers(module, data, settings))
    found: dict[str, Tensor] = {}

    def noting(step: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            if not found:
                found.update({name: each.detach().clone() for name, each in _weights(module).items()})
            return step(*args, **kwargs)

        return noted

    with wrapped_step(module, noting):
        trained_for(module, dict(data), settings, 1)
    return found or _weights(module)


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: each for name, each in module.named_parameters() if not is_lazy(each)}


def batchnorms(module: nn.Module) -> list[str]:
    """Return the names of a module's BatchNorms."""
    return [name for name, part in module.named_modules() if isinstance(part, BatchNormBase)]


Taken = list[tuple[nn.Module, str, nn.Module]]


def without_batchnorm(module: nn.Module) -> Taken:
    """Replace each BatchNorm of a module by `nn.Identity`; return what was removed."""
    taken: Taken = []
    for parent in list(module.modules()):
        for name, child in list(children_of(parent).items()):
            if isinstance(child, BatchNormBase):
                taken.append((parent, name, child))
                children_of(parent)[name] = nn.Identity()
    return taken


def put_back(taken: Taken) -> None:
    """Undo what `without_batchnorm` did."""
    for parent, name, child in taken:
        children_of(parent)[name] = child
