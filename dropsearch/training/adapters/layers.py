"""Modules that build their layers in the hooks `setup` and `configure_model`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dropsearch._compat.lightning import is_lightning_class
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
    """Return a module after the hooks that build layers, as at the start of a fit.

    Args:
        module: A newly constructed module.
        data: Data arguments of `Trainer.fit`.
        settings: Training settings shared by all trials.

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
