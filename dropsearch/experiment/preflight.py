"""Checks of device, folders, storage and tracking, before heavy imports and before anything is written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dropsearch._compat.database_urls import is_same_database
from dropsearch.config.schema import Config
from dropsearch.core.errors import InputError, RunError, require
from dropsearch.core.printable import masked
from dropsearch.study.storage import check_storage
from dropsearch.tracking import check_extras, tracker_names
from dropsearch.tracking.mlflow.address import check_reachable, resolve


def check_prerequisites(config: Config) -> None:
    """Check the device, the output directory and, for tasks with a study, storage and tracking."""
    use_devices(config)
    _check_device(config.trainer.accelerator)
    if config.cluster.name == "ray":
        require("cluster=ray", "ray")
    check_folder(Path(config.output_dir))
    if config.task in ("search", "work", "evidence", "plan"):
        check_storage(config.study.storage, Path(config.output_dir) / "study.journal")
    if config.task in ("search", "evidence", "plan"):
        _check_tracking(config)


VISIBLE = "CUDA_VISIBLE_DEVICES"


def use_devices(config: Config) -> None:
    """Restrict CUDA to the GPUs of `engine.devices`, in this process and its children."""
    devices = config.engine.devices
    if devices == "auto":
        return
    before = os.environ.get(VISIBLE)
    names = before.split(",") if before else [str(index) for index in range(_gpus())]
    if config.trainer.accelerator == "cpu" or any(index >= len(names) for index in devices):
        there = f"trainer.accelerator={config.trainer.accelerator} and {len(names)} CUDA devices that torch can see"
        raise InputError(f"engine.devices must be GPUs of this machine, got {devices} with {there}: use auto")
    os.environ[VISIBLE] = ",".join(names[index] for index in devices)
    if _gpus() != len(devices):
        os.environ.pop(VISIBLE) if before is None else os.environ.update({VISIBLE: before})
        raise InputError(
            f"engine.devices must be chosen before this process uses CUDA, got {devices}: set {VISIBLE} instead"
        )


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _check_device(accelerator: str) -> None:
    if accelerator != "gpu":
        return
    import torch

    if not torch.cuda.is_available():
        raise InputError(
            "trainer.accelerator=gpu needs a CUDA device that torch can see, and there is none: "
            "use trainer.accelerator=cpu or auto"
        )


LONGEST_PART = 255
"""Maximum number of bytes of a path component."""


def too_long(path: str) -> str:
    """Return the first path component that is too long, or an empty string."""
    return next((part for part in path.split("/") if len(os.fsencode(part)) > LONGEST_PART), "")


def check_folder(folder: Path, key: str = "output_dir") -> None:
    """Check that a folder can be created and written, without creating it."""
    if long := too_long(str(folder)):
        raise InputError(f'{key} must have parts of at most {LONGEST_PART} bytes, got "{long[:40]}…": shorten it')
    # A path below a file is invalid, although its nearest existing parent folder is writable.
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    problem = None
    if not nearest.is_dir():
        problem = f"{nearest} is not a folder"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        problem = f"{nearest} must not be written"
    if problem:
        raise InputError(f'{key} must be a folder that can be written, got "{folder}" ({problem}): name another')


def _check_tracking(config: Config) -> None:
    """Check that MLflow is reachable; a new database file always is."""
    check_extras(config.tracking.name)
    if "mlflow" not in tracker_names(config.tracking.name):
        return
    address = resolve(config.tracking.uri, os.environ.get("MLFLOW_TRACKING_URI"), Path(config.output_dir))
    storage = config.study.storage
    if isinstance(storage, str) and "://" in storage and is_same_database(storage, address.uri):
        raise InputError(
            f'study.storage must be another database than {address.origin}, got "{masked(storage)}" for both: '
            "Optuna and MLflow use the same table names; set another URL for one of them"
        )
    if address.is_yet_to_be_made:
        check_folder(address.database.parent, address.origin)
    else:
        check_reachable(address)


@contextmanager
def reached(folder: Path) -> Iterator[None]:
    """Convert disk errors to a one-line error."""
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{error.filename or folder} could not be read or written ({error.strerror or error}): check the free "
            "space, then repeat the command, which continues from the stored trials"
        ) from error
