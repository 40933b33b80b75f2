"""Samplers, pruners and storages in a call of `dropsearch.search`: by name, or as Optuna's objects."""

from __future__ import annotations

import os
from typing import Any

from dropsearch.config.schema import Config


def overrides(sampler: Any, pruner: Any) -> list[str]:
    """Return the command-line words for a sampler and a pruner that are named."""
    named = {"sampler": sampler, "pruner": pruner}
    return [f"{group}={name}" for group, name in named.items() if isinstance(name, str)]


def check(sampler: Any, pruner: Any, storage: Any) -> None:
    """Check what is given as an object; names and addresses are checked with the configuration.

    Raises:
        InputError: An object is not one that Optuna takes there.
    """
    if not all(isinstance(given, str | None) for given in (sampler, pruner, storage)):
        from dropsearch.study.samplers import check_objects  # imports Optuna

        check_objects(sampler, pruner, storage)


def put(config: Config, sampler: Any, pruner: Any, storage: Any) -> None:
    """Put objects into a configuration that has been checked; reports name them by their class."""
    chosen: Any
    for chosen, given in ((config.sampler, sampler), (config.pruner, pruner)):
        if given is not None and not isinstance(given, str):
            chosen.made_by, chosen.name = given, type(given).__name__
    if storage is not None and not isinstance(storage, str):
        config.study.storage = storage


def address(storage: Any) -> Any:
    """Return a path as text, anything else as it is."""
    return os.fspath(storage) if isinstance(storage, os.PathLike) else storage
