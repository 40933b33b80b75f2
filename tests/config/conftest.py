from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from dropsearch.config.compose import register_schemas, typed
from dropsearch.config.messages import conf_folder
from dropsearch.config.schema import Config

Compose = Callable[..., Config]
RawCompose = Callable[..., DictConfig]


@pytest.fixture(scope="package")
def raw() -> Iterator[RawCompose]:
    """Compose as the command line does, without checking."""
    register_schemas()
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        yield lambda *overrides: compose("config", list(overrides))


@pytest.fixture(scope="package")
def composed(raw: RawCompose) -> Compose:
    return lambda *overrides: typed(raw(*overrides))
