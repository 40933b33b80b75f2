"""From Hydra's configuration to plain, checked dataclasses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from dropsearch.config.check import check
from dropsearch.config.messages import FREE_KEYS, ConfigurationErrors, known_keys, one_line, unknown_key
from dropsearch.config.params import with_params
from dropsearch.config.schema import SCHEMAS, USER, Config, DataConfig, OpenConfig
from dropsearch.config.user_targets import is_free
from dropsearch.core.errors import InputError


def conf_folder() -> str:
    """Return the absolute path of conf/: inside an installed package, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside, beside = package / "conf", package.parent / "conf"
    return str(inside if inside.is_dir() else beside)


def register_schemas() -> None:
    """Tell Hydra the types of the configuration."""
    store = ConfigStore.instance()
    # The files of earlier runs know the first name, and no other data than the catalogue's.
    store.store(name="schema", node=Config)
    store.store(group="schema", name="config", node=OpenConfig)
    OmegaConf.register_new_resolver("last_part", lambda path: str(path).rpartition(".")[2], replace=True)
    for group, schemas in SCHEMAS.items():
        for name, schema in schemas.items():
            # What belongs to the user's own class has names of the user's choice.
            node: Any = OmegaConf.structured(schema, flags={"struct": False}) if name == USER else schema
            store.store(group=f"schema/{group}", name=name, node=node)


def compose_overrides(overrides: Sequence[str]) -> Config:
    """Return the configuration that the command line would make of these overrides, without running anything.

    Raises:
        InputError: As `typed`.
    """
    register_schemas()
    running, hydra = GlobalHydra.instance(), GlobalHydra.instance().hydra
    running.clear()  # the caller may be a Hydra application of its own
    try:
        with initialize_config_dir(conf_folder(), version_base="1.3"):
            return typed(compose("config", overrides=with_params(overrides)))
    except ConfigurationErrors as error:
        raise InputError(one_line(error)) from error
    finally:
        GlobalHydra.instance().hydra = hydra


def typed(raw: DictConfig) -> Config:
    """Return the configuration as dataclasses, with ``~`` expanded and every rule checked.

    Raises:
        InputError: A key is unknown, a value has the wrong type or a rule is broken.
    """
    try:
        config = _as_objects(raw)
    except ConfigurationErrors as error:
        raise InputError(one_line(error)) from error
    config.output_dir = os.path.expanduser(config.output_dir)
    if isinstance(config.data, DataConfig):
        config.data.root = os.path.expanduser(config.data.root)
    check(config)
    return config


def _as_objects(raw: DictConfig) -> Config:
    chosen = [OmegaConf.get_type(raw[group]) or dict for group in SCHEMAS]
    known = known_keys(*chosen)
    for key in _leaves(OmegaConf.to_container(raw, resolve=True), ""):
        if key not in known and not key.startswith(FREE_KEYS) and not is_free(key, chosen):
            raise InputError(unknown_key(key))
    config: Any = OmegaConf.to_object(raw)
    assert isinstance(config, Config)
    return config


def _leaves(node: Any, prefix: str) -> list[str]:
    if not isinstance(node, dict) or not node:
        return [prefix.removesuffix(".")] if prefix else []
    return [leaf for key, value in node.items() for leaf in _leaves(value, f"{prefix}{key}.")]
