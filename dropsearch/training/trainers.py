"""Building the Trainer of a module, from the module's Lightning package and with the user's arguments."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from dropsearch._compat import lightning, lightning_trainer
from dropsearch.core.errors import InputError
from dropsearch.training.protocols import TrainerSettings

AnyTrainer = TypeVar("AnyTrainer", bound=Any)

_ONE_DEVICE, _ONE_PROCESS = "each trial trains on one device", "each trial trains in one process"
WITHOUT_EFFECT: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "devices": ((1, "1", "auto"), _ONE_DEVICE),
    "num_nodes": ((1,), _ONE_DEVICE),
    "sync_batchnorm": ((False,), _ONE_PROCESS),
    "use_distributed_sampler": ((), _ONE_PROCESS),
    "limit_predict_batches": ((), "nothing is predicted"),
    "model_registry": ((None,), "no model is uploaded"),
}
"""Trainer arguments without effect on a trial: their neutral values, and the reason."""


def trainer_class(module: Any) -> type[Any]:
    """Return the Trainer class of a module's Lightning package; raise `InputError` if it is no LightningModule."""
    package = lightning.package_of(module)
    if not package:
        raise InputError(
            f"model must be a LightningModule of lightning or pytorch_lightning, got {type(module).__name__}"
        )
    return lightning.trainer_class(package)


def make_trainer(module: Any, settings: TrainerSettings, callbacks: Sequence[Any], **defaults: Any) -> Any:
    """Return a Trainer for a trial or a part of it.

    Its arguments are ours, then `defaults`, then the user's, which override all others; `callbacks` come before the
    user's.
    """
    user_arguments = dict(settings.trainer())
    plugins = as_list(user_arguments.pop("plugins", None))
    if not any(map(lightning.is_cluster, plugins)):
        plugins.append(lightning.one_process(lightning.package_of(module)))
    callbacks = [*map(lightning_trainer.without_idle_hooks, callbacks), *as_list(user_arguments.pop("callbacks", None))]
    defaults, callbacks = _with_silent(lightning.package_of(module), user_arguments, callbacks, defaults)
    arguments = {
        "accelerator": settings.accelerator,
        "devices": 1,
        "precision": settings.precision,
        "logger": False,
        "enable_checkpointing": any(is_kind(callback, "Checkpoint") for callback in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "plugins": plugins,
        **defaults,
        **user_arguments,
    }
    with lightning.entry_points_once(lightning.package_of(module)):
        return trainer_class(module)(callbacks=list(callbacks), **arguments)


def _with_silent(
    package: str, given: Mapping[str, Any], callbacks: list[Any], defaults: dict[str, Any]
) -> tuple[dict[str, Any], list[Any]]:
    """Add a silent logger, progress bar and checkpoint callback if the user gave none, for modules that access them."""
    if given.get("barebones"):
        return defaults, callbacks
    added, more = [], {"logger": lightning_trainer.silent_logger(package)}
    if "enable_progress_bar" not in given and not any(is_kind(each, "ProgressBar") for each in callbacks):
        added.append(lightning_trainer.silent_progress_bar(package))
        more["enable_progress_bar"] = True
    if "enable_checkpointing" not in given and not any(is_kind(each, "Checkpoint") for each in callbacks):
        added.append(lightning_trainer.silent_checkpoint(package))
        more["enable_checkpointing"] = True
    return {**more, **defaults}, [*callbacks, *added]


def without_effect(given: Mapping[str, Any]) -> None:
    """Raise `InputError` for a Trainer argument without effect on a trial."""
    for name, (harmless, why) in WITHOUT_EFFECT.items():
        if name in given and given[name] not in harmless:
            raise InputError(f"trainer.{name} must be left out, because {why}, got {given[name]}")


def is_kind(callback: Any, name: str) -> bool:
    """Return whether a callback is of one of Lightning's kinds, in either package."""
    return any(base.__name__ == name and lightning.is_lightning_class(base) for base in type(callback).__mro__)


def batches_in(loader: Any) -> float:
    """Return the number of batches per epoch of a loader, or infinity if unknown, as a Trainer does."""
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return math.inf


def with_steps(trainer: AnyTrainer, loader: Any) -> AnyTrainer:
    """Set `estimated_stepping_batches` of a Trainer, which schedules read, to those of a loader; return the Trainer.

    An infinite number of batches per epoch gives -1 steps, as in Lightning.
    """
    batches = batches_in(loader)
    epochs, each = max(trainer.max_epochs or 0, 1), trainer.accumulate_grad_batches
    steps = -1 if batches == math.inf else -(-int(batches) // each) * epochs
    trainer.__class__ = type(type(trainer).__name__, (type(trainer),), {"estimated_stepping_batches": steps})
    return trainer


def bare_trainer(loader: Any, max_epochs: int, accumulation: int = 1, accelerator: str = "cpu") -> Any:
    """Return a Trainer that fits nothing, for schedules that read its number of steps over a loader."""
    options = {"max_epochs": max_epochs, "accumulate_grad_batches": accumulation}
    return with_steps(lightning.idle_trainer("lightning.pytorch", accelerator, **options), loader)


def as_list(given: Any) -> list[Any]:
    """Return the values of an argument of the Trainer that takes one or several."""
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Suppress Lightning's messages for interactive users (devices, tips), and keep signal handlers."""
    with lightning.quiet_loggers(logging.WARNING), warnings.catch_warnings(), lightning_trainer.other_handlers_kept():
        # Built-in loaders slice tensors in memory; worker processes, which these warnings recommend, would
        # slow them down. The second comes with any training set of few batches.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*The number of training batches.*")
        # Modules are probed on the CPU even if they train on a GPU.
        warnings.filterwarnings("ignore", message=".*GPU available but not used.*")
        # Submodules in eval mode are reported once before the search.
        warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
        # Each Trainer is one process, also with SLURM.
        warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
        # lightning 2.6 uses a form of torch's pytree that torch 2.13 deprecates.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        yield
