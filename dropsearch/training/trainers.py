"""The Trainer that fits a module: of the module's own Lightning, with the user's own arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from dropsearch._compat import lightning
from dropsearch.core.errors import InputError
from dropsearch.training.protocols import TrainerSettings

AnyTrainer = TypeVar("AnyTrainer", bound=Any)


def trainer_class(module: Any) -> type[Any]:
    """Return the Trainer of the package that a module's class comes from: `lightning` or `pytorch_lightning`.

    Raises:
        InputError: The module is no LightningModule.
    """
    package = lightning.package_of(module)
    if not package:
        raise InputError(
            f"model must be a LightningModule of lightning or pytorch_lightning, got {type(module).__name__}"
        )
    return lightning.trainer_class(package)


def make_trainer(module: Any, settings: TrainerSettings, callbacks: Sequence[Any], **ours: Any) -> Any:
    """Return a Trainer for one trial, or for a part of one.

    Args:
        module: What it will fit.
        settings: What all trials share; the user's own arguments come on top of ours.
        callbacks: Ours, which come before the user's.
        ours: Further arguments.
    """
    given = dict(settings.trainer())
    plugins = _listed(given.pop("plugins", None))
    if not any(map(lightning.is_cluster, plugins)):
        plugins.append(lightning.one_process(lightning.package_of(module)))
    callbacks = [*callbacks, *_listed(given.pop("callbacks", None))]
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
        **ours,
        **given,
    }
    return trainer_class(module)(callbacks=list(callbacks), **arguments)


def with_steps(trainer: AnyTrainer, batches: int) -> AnyTrainer:
    """Let a Trainer that gets no loader tell a schedule how many steps there will be, and return it.

    Args:
        trainer: Its ``estimated_stepping_batches`` would otherwise look for a loader.
        batches: Those of an epoch.
    """
    steps = batches * max(trainer.max_epochs or 0, 1)
    trainer.__class__ = type(type(trainer).__name__, (type(trainer),), {"estimated_stepping_batches": steps})
    return trainer


def _listed(given: Any) -> list[Any]:
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]


def _is_checkpoint(callback: Any) -> bool:
    return any(base.__name__ == "Checkpoint" for base in type(callback).__mro__)
