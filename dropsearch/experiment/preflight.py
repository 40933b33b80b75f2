"""What a run needs around it, looked at before anything heavy is imported and before anything is written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dropsearch._compat.database_urls import is_same_database
from dropsearch.config.schema import Config
from dropsearch.core.errors import InputError, RunError
from dropsearch.core.extras import require
from dropsearch.core.printable import masked
from dropsearch.experiment.devices import use_devices
from dropsearch.study.storage import check_storage
from dropsearch.tracking import check_extras, tracker_names
from dropsearch.tracking.mlflow.address import check_reachable, resolve


def check_prerequisites(config: Config) -> None:
    """Check the device, the output directory, and where a study is opened or planned storage and tracking too.

    Raises:
        InputError: The first of them that cannot be used.
    """
    use_devices(config)
    _check_device(config.trainer.accelerator)
    if config.cluster.name == "ray":
        require("cluster=ray", "ray")
    check_folder(Path(config.output_dir))
    if config.task in ("search", "work", "evidence", "plan"):
        check_storage(config.study.storage, Path(config.output_dir) / "study.journal")
    if config.task in ("search", "evidence", "plan"):
        _check_tracking(config)


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
"""Bytes that file systems allow in one part of a path."""


def too_long(path: str) -> str:
    """Return the first part of a path that no file system takes, or an empty string."""
    return next((part for part in path.split("/") if len(os.fsencode(part)) > LONGEST_PART), "")


def check_folder(folder: Path, key: str = "output_dir") -> None:
    """Check that a folder can be made and written, without making it.

    Args:
        folder: The folder.
        key: Where its path was given.

    Raises:
        InputError: It cannot.
    """
    if long := too_long(str(folder)):
        raise InputError(f'{key} must have parts of at most {LONGEST_PART} bytes, got "{long[:40]}…": shorten it')
    # A path below a file is no folder, though pathlib would find its nearest folder beyond the file.
    nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    problem = None
    if not nearest.is_dir():
        problem = f"{nearest} is not a folder"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        problem = f"{nearest} must not be written"
    if problem:
        raise InputError(f'{key} must be a folder that can be written, got "{folder}" ({problem}): name another')


def _check_tracking(config: Config) -> None:
    """Find out whether MLflow's place answers; a database file that is yet to be made always does."""
    check_extras(config.tracking.name)
    if "mlflow" not in tracker_names(config.tracking.name):
        return
    address = resolve(config.tracking.uri, os.environ.get("MLFLOW_TRACKING_URI"), Path(config.output_dir))
    storage = config.study.storage
    if isinstance(storage, str) and "://" in storage and is_same_database(storage, address.uri):
        raise InputError(
            f'study.storage must be another database than {address.origin}, got "{masked(storage)}" for both: '
            "Optuna and MLflow have tables of the same names; give another one to either"
        )
    if address.is_yet_to_be_made:
        check_folder(address.database.parent, address.origin)
    else:
        check_reachable(address)


@contextmanager
def reached(folder: Path) -> Iterator[None]:
    """Say in one line that the disk failed.

    Raises:
        RunError: A file in the folder could not be read or written.
    """
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{error.filename or folder} could not be read or written ({error.strerror or error}): see that there is "
            "space, then give the same command again; it continues from what the study holds"
        ) from error
