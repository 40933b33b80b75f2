"""Layers of user modules: built in the hooks `setup` and `configure_model`, and BatchNorms, which can be removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from dropsearch._compat.lightning import is_lightning_class
from dropsearch._compat.torch_modules import BatchNormBase, children_of
from dropsearch.core.errors import InputError
from dropsearch.core.user_errors import described
from dropsearch.training.adapters.probe import for_a_look
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.trainers import make_trainer, quiet_lightning

HOOKS = ("setup", "configure_model")


def builds_in_hooks(module: Any) -> bool:
    """Return whether a module overrides a hook that may build layers."""
    owners = (next(kind for kind in type(module).__mro__ if hook in kind.__dict__) for hook in HOOKS)
    return not all(map(is_lightning_class, owners))


def with_layers(module: Any, data: Mapping[str, Any], settings: TrainerSettings) -> Any:
    """Return a new module after the hooks that build layers, as at the start of a fit on this data.

    Raises:
        InputError: A hook fails.
    """
    if not builds_in_hooks(module):
        return module
    with quiet_lightning():
        trainer = make_trainer(module, for_a_look(settings), [], max_epochs=settings.max_epochs)
    trainer.datamodule = data.get("datamodule")
    module.trainer = trainer
    try:
        module.setup("fit")
        module.configure_model()
    except Exception as error:
        raise InputError(
            f"model={type(module).__name__} must build its layers in setup and configure_model, but fails: "
            f"{described(error)}"
        ) from error
    finally:
        module.__dict__["_trainer"] = None
    return module


def batchnorms(module: nn.Module) -> list[str]:
    """Return the names of a module's BatchNorms."""
    return [name for name, part in module.named_modules() if isinstance(part, BatchNormBase)]


Taken = list[tuple[nn.Module, str, nn.Module]]
"""Removed modules: parent, name, module."""


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
