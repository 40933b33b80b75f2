"""From Hydra's configuration to plain, checked dataclasses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from dropsearch.config.check import check
from dropsearch.config.messages import known_keys
from dropsearch.config.schema import SCHEMAS, Config
from dropsearch.errors import InputError, close_match

_FREE_KEYS = ("retrain.rates.",)
"""Below these, keys are names that the user's model gives."""


def conf_folder() -> str:
    """Return the absolute path of conf/: inside an installed package, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside, beside = package / "conf", package.parent / "conf"
    return str(inside if inside.is_dir() else beside)


def register_schemas() -> None:
    """Tell Hydra the types of the configuration."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    for group, schemas in SCHEMAS.items():
        for name, schema in schemas.items():
            store.store(group=f"schema/{group}", name=name, node=schema)


def typed(raw: DictConfig) -> Config:
    """Return the configuration as dataclasses, with ``~`` expanded and every rule checked.

    Raises:
        InputError: A key is unknown or a rule is broken.
    """
    for key in _leaves(OmegaConf.to_container(raw, resolve=True), ""):
        if key not in known_keys() and not key.startswith(_FREE_KEYS):
            raise InputError(f'"{key}" is not a key of the configuration{close_match(key, known_keys())}')
    config: Any = OmegaConf.to_object(raw)
    assert isinstance(config, Config)
    config.output_dir = os.path.expanduser(config.output_dir)
    config.data.root = os.path.expanduser(config.data.root)
    check(config)
    return config


def _leaves(node: Any, prefix: str) -> list[str]:
    if not isinstance(node, dict) or not node:
        return [prefix.removesuffix(".")] if prefix else []
    return [leaf for key, value in node.items() for leaf in _leaves(value, f"{prefix}{key}.")]
