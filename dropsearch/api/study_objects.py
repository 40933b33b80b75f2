"""Samplers, pruners and storages as arguments of `dropsearch.search`: names or Optuna objects."""

from __future__ import annotations

import os
from typing import Any

from dropsearch.config.schema import Config


def overrides(sampler: Any, pruner: Any) -> list[str]:
    """Return the overrides for a sampler and a pruner given by name."""
    named = {"sampler": sampler, "pruner": pruner}
    return [f"{group}={name}" for group, name in named.items() if isinstance(name, str)]


def check(sampler: Any, pruner: Any, storage: Any) -> None:
    """Check objects; names and URLs are checked with the configuration.

    Raises:
        InputError: An object has the wrong type.
    """
    if not all(isinstance(given, str | None) for given in (sampler, pruner, storage)):
        from dropsearch.study.samplers import check_objects  # imports Optuna

        check_objects(sampler, pruner, storage)


def put(config: Config, sampler: Any, pruner: Any, storage: Any) -> None:
    """Store objects in a checked configuration; reports show the names of their classes."""
    chosen: Any
    for chosen, given in ((config.sampler, sampler), (config.pruner, pruner)):
        if given is not None and not isinstance(given, str):
            chosen.made_by, chosen.name = given, type(given).__name__
    if storage is not None and not isinstance(storage, str):
        config.study.storage = storage


def address(storage: Any) -> Any:
    """Return a path as a string and anything else unchanged."""
    return os.fspath(storage) if isinstance(storage, os.PathLike) else storage
