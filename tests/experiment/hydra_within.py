"""Hydra within a process that other tests use as well, and that has imported every library before it."""

from __future__ import annotations

import logging
from typing import Any

from hydra._internal import hydra, logging_config

_get_mode, _configure = hydra.Hydra.get_mode, logging_config.configure_logging


def fit_in() -> None:
    """Let Hydra compose a configuration once, and disable no loggers but its own.

    Hydra composes it before as well, to read a mode that ours leaves open. It disables all loggers that there are: in a
    process of its own those of the libraries, which are imported later, are not among them.
    """
    hydra.Hydra.get_mode, logging_config.configure_logging = _mode, _keep_loggers


def _mode(self: hydra.Hydra, config_name: str | None, overrides: list[str]) -> Any:
    is_open = config_name == "config" and not any("hydra" in override for override in overrides)
    return None if is_open else _get_mode(self, config_name, overrides)


def _keep_loggers(config: dict[str, Any]) -> None:
    _configure({**config, "disable_existing_loggers": False})
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.partition(".")[0] == "hydra" and isinstance(logger, logging.Logger):
            logger.disabled = True
