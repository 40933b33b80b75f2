"""Parts of a run that depend on the configuration only: device, data and training settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate

from dropsearch.config.schema import Config, arguments
from dropsearch.core.errors import InputError, first_cause
from dropsearch.core.global_state import seeded
from dropsearch.core.records import Monitor
from dropsearch.datasets.data_module import TensorDataModule
from dropsearch.datasets.given_loaders import GivenLoaders, as_data_module
from dropsearch.datasets.user_data import UserData
from dropsearch.datasets.user_parts import defines
from dropsearch.experiment.targets import as_text, check_arguments, imported, instantiated, named_arguments
from dropsearch.tracking import Tracker, make_tracker
from dropsearch.tracking.lightning_logger import LoggerTracker
from dropsearch.training.adapters.hyperparameters import ARGUMENTS, accepted
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.trainers import without_effect

Source = TensorDataModule | UserData
"""A built-in data module or an adapted user data module."""


def device(config: Config) -> torch.device:
    """Return the device of `trainer.accelerator`, whose availability has been checked."""
    wanted = config.trainer.accelerator
    return torch.device("cuda" if wanted == "gpu" or (wanted == "auto" and torch.cuda.is_available()) else "cpu")


def data_source(config: Config, where: torch.device) -> Source:
    """Build the data module, set it up, and move its tensors to the device once.

    Raises:
        InputError: The data is missing, cannot be built, or yields no batches.
    """
    module = _data_module(config)
    if hasattr(module, "in_rows"):  # already a data source
        module.setup()
        return module.to(where)
    is_double = config.trainer.precision == "64-true"
    return UserData(module, config.data.name, config.seed, is_double=is_double).to(where)


def _data_module(config: Config) -> Any:
    chosen: Any = config.data
    if chosen.made_by is not None:
        return chosen.made_by
    target = imported(chosen._target_, "data._target_")
    check_arguments("data", chosen, target)
    with seeded(config.seed):
        if target is GivenLoaders:
            return GivenLoaders(make_module=partial(_module, config))
        return as_data_module(instantiated(chosen._target_, named_arguments(chosen, target), "data"), chosen.name)


def _module(config: Config) -> Any:
    """Return a module whose own loaders are taken."""
    chosen: Any = config.model
    if chosen.made_by is not None:
        raise InputError("data=module must be left out in Python: give datamodule=None")
    target = imported(chosen._target_, "model._target_")
    names, values = accepted(target)[0], {"lr": 1e-3, "weight_decay": 0.0}
    settings = {name: values[key] for key, known in ARGUMENTS.items() for name in known if name in names}
    module = instantiated(chosen._target_, {**settings, **named_arguments(chosen, target)}, "model")
    for method in ("train_dataloader", "val_dataloader"):
        if not defines(module, method):
            raise InputError(f"data=module needs a module that has loaders itself, and {chosen.name} has no {method}")
    return module


def trainer_settings(config: Config, where: torch.device) -> TrainerSettings:
    """Return the training settings shared by all trials."""
    trainer, mode = config.trainer, config.mode
    without_effect(arguments(trainer))
    return TrainerSettings(
        trainer.max_epochs,
        "gpu" if where.type == "cuda" else "cpu",
        trainer.precision,
        trainer.gradient_clip_val,
        monitor=Monitor(config.monitor, mode, config.unit),  # type: ignore[arg-type]  # checked with the configuration
        trainer=_trainer_arguments(config),
        shared_masks=config.engine.mask_seed == "shared",
        shared_batches=config.engine.batch_seed == "shared",
    )


def _trainer_arguments(config: Config) -> Callable[[], Mapping[str, Any]]:
    """Return a factory of the user's Trainer arguments, which makes new objects for each trial."""
    given, callbacks = arguments(config.trainer), config.trainer.made_by

    def make() -> Mapping[str, Any]:
        try:
            made = instantiate(as_text({"_convert_": "all", **given})) if given else {}
        except Exception as error:  # user callbacks may raise anything
            keys = ", ".join(f"trainer.{key}" for key in given)
            raise InputError(f"{keys} must be arguments that can be built, got {first_cause(error)}") from error
        return {**made, "callbacks": callbacks()} if callbacks else made

    return make


def make_output_folder(folder: Path) -> None:
    """Create the output directory."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f'output_dir must be a folder that can be written, got "{folder}" ({error.strerror}): name another'
        ) from error


def tracker(config: Config, folder: Path) -> Tracker:
    """Return the configured tracker, combined with a Lightning logger passed from Python."""
    tracking = config.tracking
    loggers = [] if tracking.made_by is None else [LoggerTracker(tracking.made_by)]
    return make_tracker(tracking.name, uri=tracking.uri, output_dir=folder, more=loggers)
