"""Reading of the Optuna studies of a run."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import optuna

from dropsearch.core.errors import InputError
from dropsearch.study.reconnect import patiently
from dropsearch.study.storage import open_storage, storage_exists


def load_studies(storage: Any, journal: Path, names: Iterable[str]) -> dict[str, optuna.Study]:
    """Return studies by their names.

    Args:
        storage: An Optuna storage, its URL, or the path of a journal file; None for `journal`.
        journal: The journal file to use by default.
        names: Names in the storage.

    Raises:
        InputError: The storage is missing, cannot be opened, or lacks a study.
        RunError: The storage failed.
    """
    if not storage_exists(storage, journal):
        raise InputError(
            f"the study's storage must exist, got {storage or journal}: pass storage=..., or run the search again"
        )
    opened = open_storage(storage, journal)
    try:
        return {name: patiently(name, partial(optuna.load_study, study_name=name, storage=opened)) for name in names}
    except KeyError as error:
        raise InputError(f"the storage must contain the studies {', '.join(names)}, but lacks one of them") from error
