"""Builds the Trainer of a module, from the module's Lightning package and with the user's arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from dropsearch._compat import lightning
from dropsearch.core.errors import InputError
from dropsearch.training.protocols import TrainerSettings

AnyTrainer = TypeVar("AnyTrainer", bound=Any)


def trainer_class(module: Any) -> type[Any]:
    """Return the Trainer class of a module's Lightning package: `lightning` or `pytorch_lightning`.

    Raises:
        InputError: The module is not a LightningModule.
    """
    package = lightning.package_of(module)
    if not package:
        raise InputError(
            f"model must be a LightningModule of lightning or pytorch_lightning, got {type(module).__name__}"
        )
    return lightning.trainer_class(package)


def make_trainer(module: Any, settings: TrainerSettings, callbacks: Sequence[Any], **defaults: Any) -> Any:
    """Return a Trainer for a trial or a part of it.

    Args:
        module: The module to fit.
        settings: Training settings shared by all trials. Their Trainer arguments override all others.
        callbacks: Callbacks that come before the user's.
        defaults: Further arguments of the Trainer.
    """
    user_arguments = dict(settings.trainer())
    plugins = _as_list(user_arguments.pop("plugins", None))
    if not any(map(lightning.is_cluster, plugins)):
        plugins.append(lightning.one_process(lightning.package_of(module)))
    callbacks = [*callbacks, *_as_list(user_arguments.pop("callbacks", None))]
    arguments = {
        "accelerator": settings.accelerator,
        "devices": 1,
        "precision": settings.precision,
        "logger": False,
        "enable_checkpointing": any(_is_checkpoint(callback) for callback in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "plugins": plugins,
        **defaults,
        **user_arguments,
    }
    return trainer_class(module)(callbacks=list(callbacks), **arguments)


def with_steps(trainer: AnyTrainer, batches: int) -> AnyTrainer:
    """Set `estimated_stepping_batches` of a Trainer that has no loader, for modules that build schedules; return it.

    Args:
        trainer: The Trainer.
        batches: Number of batches per epoch.
    """
    steps = batches * max(trainer.max_epochs or 0, 1)
    trainer.__class__ = type(type(trainer).__name__, (type(trainer),), {"estimated_stepping_batches": steps})
    return trainer


def _as_list(given: Any) -> list[Any]:
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]


def _is_checkpoint(callback: Any) -> bool:
    return any(base.__name__ == "Checkpoint" for base in type(callback).__mro__)
