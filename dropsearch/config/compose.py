"""Conversion of Hydra's configuration to validated dataclasses, of one run or of all jobs of a sweep."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from dropsearch.config.check import check
from dropsearch.config.command_line import check_options
from dropsearch.config.messages import ConfigurationErrors, conf_folder, known_keys, one_line, unknown_key
from dropsearch.config.params import with_params
from dropsearch.config.schema import FREE, Config
from dropsearch.core.errors import BAD_INPUT, InputError
from dropsearch.core.override_text import leaves
from dropsearch.core.printable import tell

_DEFAULT = "unless_given"
"""The resolver that distinguishes a default from the same value given by the user."""


def register_schemas() -> None:
    """Register the configuration schema with Hydra; the sections in `FREE` accept unknown keys."""
    OmegaConf.register_new_resolver("last_part", lambda path: str(path).rpartition(".")[2], replace=True)
    OmegaConf.register_new_resolver(_DEFAULT, float, replace=True)
    store = ConfigStore.instance()
    stored = store.repo.get("schema.yaml")
    if stored is None or OmegaConf.get_type(stored.node) is not Config:  # to store it copies all of it
        store.store(name="schema", node=_schema())


@cache
def _schema() -> Any:
    node: Any = OmegaConf.structured(Config)
    for key in FREE:
        OmegaConf.set_struct(OmegaConf.select(node, key), False)
    for part, value in list(node.space.lr.items()):
        node.space.lr[part] = f"${{{_DEFAULT}:{value}}}"
    return node


def compose_overrides(overrides: Sequence[str]) -> Config:
    """Return the configuration that the command line composes from overrides, without running anything."""
    check_options(overrides)
    register_schemas()
    running, hydra = GlobalHydra.instance(), GlobalHydra.instance().hydra
    running.clear()  # the caller may itself be a Hydra application
    try:
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            return typed(compose("config", overrides=with_params(overrides)))
    except ConfigurationErrors as error:
        raise InputError(one_line(error)) from error
    finally:
        GlobalHydra.instance().hydra = hydra


def typed(raw: DictConfig) -> Config:
    """Return the configuration as validated dataclasses with ``~`` expanded.

    Raises:
        InputError: A key is unknown, a value has the wrong type, or a rule is violated.
    """
    try:
        config = _as_objects(raw)
    except ConfigurationErrors as error:
        raise InputError(one_line(error)) from error
    config.space.lr.is_given = _is_given(raw, "space.lr")
    expand_homes(config)
    check(config)
    return config


def expand_homes(config: Config) -> None:
    """Expand ``~`` at the beginning of the paths of a configuration, also of those in an SQLite URL."""
    config.output_dir = os.path.expanduser(config.output_dir)
    if isinstance(config.study.storage, str):
        config.study.storage = _at_home(config.study.storage)
    if config.study.warm_start is not None:
        config.study.warm_start = _at_home(config.study.warm_start)
    if config.tracking.uri is not None:
        config.tracking.uri = _at_home(config.tracking.uri)


def _at_home(place: str) -> str:
    scheme, separator, path = place.rpartition(":///")
    return f"{scheme}{separator}{os.path.expanduser(path)}" if scheme.startswith("sqlite") or not scheme else place


def _is_given(raw: DictConfig, key: str) -> bool:
    """Return whether the user set a bound of a range, in a file or on the command line."""
    unresolved: Any = OmegaConf.to_container(raw, resolve=False)
    for part in key.split("."):
        unresolved = unresolved.get(part) or {} if isinstance(unresolved, dict) else unresolved
    values = unresolved.values() if isinstance(unresolved, dict) else [unresolved]
    return any(not str(value).startswith(f"${{{_DEFAULT}:") for value in values)


def _as_objects(raw: DictConfig) -> Config:
    known = known_keys()
    for key, _ in leaves(OmegaConf.to_container(raw, resolve=True)):
        if key not in known and not key.startswith((*(f"{section}." for section in FREE), "hydra.")):
            raise InputError(unknown_key(key))
    if OmegaConf.get_type(raw) is not Config:  # a user's file whose defaults list lacks the schema
        merged: Any = OmegaConf.merge(_schema(), raw)
        raw = merged
    config: Any = OmegaConf.to_object(raw)
    assert isinstance(config, Config)
    return config


class CheckJobs(Callback):
    """Exits with status 2 before anything is written if any job of a sweep is invalid."""

    def on_multirun_start(self, config: DictConfig, config_name: str | None = None, **_: Any) -> None:
        """Check every job; Hydra calls this before its sweeper creates files."""
        given: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
        try:
            check_jobs(config_name or "config", given)
        except InputError as error:
            _refuse(str(error))
        except ConfigurationErrors as error:
            _refuse(one_line(error))


def _refuse(message: str) -> None:
    # Hydra turns other exceptions of a callback into warnings and continues.
    tell(f"dropsearch: {message}")
    sys.exit(BAD_INPUT)


def check_jobs(config_name: str, overrides: Sequence[str]) -> None:
    """Compose and check every job of a sweep over these overrides."""
    begun: dict[tuple[str, str], str] = {}
    jobs = _jobs(OverridesParser.create().parse_overrides(list(overrides)))
    # Checks import user classes, so compose all jobs first.
    composed = [(job, compose(config_name, job)) for job in jobs]
    for job, raw in composed:
        config = typed(raw)
        if config.task != "search":
            continue
        # No two jobs may share a study in a storage, or in an output directory.
        study = config.study.name, config.study.storage or config.output_dir
        first = begun.setdefault(study, " ".join(job))
        if first != " ".join(job):
            raise InputError(
                f'study.name must differ between the jobs of a sweep, got "{config.study.name}" for both '
                f'"{first}" and "{" ".join(job)}": include what differs, for example '
                f"'study.name=${{model.name}}-${{data.name}}-${{seed}}'"
            )


def _jobs(overrides: Sequence[Override]) -> Iterator[list[str]]:
    """Yield the overrides of each job, split as by Hydra's sweeper."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            values[key] = [str(override.input_line)]
        elif override.is_discrete_sweep():
            values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise InputError(f"{key} must list the values of a sweep, such as {key}=A,B, got {override.input_line}")
    return (list(job) for job in itertools.product(*values.values()))
