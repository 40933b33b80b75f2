"""Hydra within a process that other tests use as well, and that has imported every library before it."""

from __future__ import annotations

import copy
import logging
import pickle
from typing import Any

from hydra._internal import defaults_list, hydra, logging_config
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository, IConfigRepository
from hydra.core.default_element import InputDefault

from dropsearch.config.messages import conf_folder

_get_mode, _configure = hydra.Hydra.get_mode, logging_config.configure_logging
_load, _merge, _order, _interpolations = (
    ConfigRepository.load_config,
    ConfigLoaderImpl._compose_config_from_defaults_list,
    defaults_list._create_defaults_list,
    defaults_list._create_interpolation_map,
)


def fit_in() -> None:
    """Let Hydra compose a configuration once, read conf/ once in a process, and disable no loggers but its own.

    Hydra composes it before as well, to read a mode that ours leaves open. It disables all loggers that there are: in a
    process of its own those of the libraries, which are imported later, are not among them.
    """
    hydra.Hydra.get_mode, logging_config.configure_logging = _mode, _keep_loggers
    ConfigRepository.load_config = _loaded_once  # type: ignore[method-assign]
    ConfigLoaderImpl._compose_config_from_defaults_list = _merged_once  # type: ignore[method-assign]
    defaults_list._create_defaults_list = _ordered_once
    defaults_list._create_interpolation_map = _interpolations_if_any
    CachingConfigRepository.__init__ = _over_a_copy  # type: ignore[method-assign]


def _mode(self: hydra.Hydra, config_name: str | None, overrides: list[str]) -> Any:
    is_open = config_name == "config" and not any("hydra" in override for override in overrides)
    return None if is_open else _get_mode(self, config_name, overrides)


def _keep_loggers(config: dict[str, Any]) -> None:
    _configure({**config, "disable_existing_loggers": False})
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if name.partition(".")[0] == "hydra" and isinstance(logger, logging.Logger):
            logger.disabled = True


_OURS = {str(conf_folder()), "hydra.conf", ""}  # the last is that of the schema
_loaded: dict[str, Any] = {}
_merged: dict[str, bytes] = {}
_ordered: dict[str, bytes] = {}


def _over_a_copy(self: CachingConfigRepository, delegate: IConfigRepository) -> None:
    """Copy the repository only: its sources are replaced by others, and none of them is changed."""
    self.delegate, self.cache = copy.copy(delegate), {}


def _interpolations_if_any(overrides: Any, defaults: Any, self_added: bool) -> Any:
    """Make the map of choices, which takes long, where a default refers to one."""
    refers = any(isinstance(each, InputDefault) and each.is_interpolation() for each in defaults)
    return _interpolations(overrides, defaults, self_added) if refers else None


def _is_ours(repo: IConfigRepository) -> bool:
    """Return whether files come from conf/ and Hydra alone, which no test changes."""
    return {source.path for source in repo.get_sources()} == _OURS


def _loaded_once(self: ConfigRepository, config_path: str) -> Any:
    if not _is_ours(self):
        return _load(self, config_path)
    if config_path not in _loaded:
        _loaded[config_path] = _load(self, config_path)
    return _loaded[config_path]


def _merged_once(self: ConfigLoaderImpl, defaults: Any, repo: CachingConfigRepository) -> Any:
    """Return a copy of what the files of a defaults list merge to; merging changes what was loaded."""
    if not _is_ours(repo):
        repo.cache = copy.deepcopy(repo.cache)
        return _merge(self, defaults, repo)
    key = repr(defaults)
    if key not in _merged:
        own = CachingConfigRepository(repo.delegate)
        own.cache = {f"config_path={path}": copy.deepcopy(result) for path, result in _loaded.items()}
        _merged[key] = pickle.dumps(_merge(self, defaults, own))
    return pickle.loads(_merged[key])


def _ordered_once(repo: Any, config_name: Any, overrides: Any, prepend_hydra: bool, skip_missing: bool) -> Any:
    """Return the defaults list of the groups that are chosen, and mark in the overrides which of them were used."""
    if not _is_ours(repo) or overrides.append_group_defaults or overrides.deletions:
        return _order(repo, config_name, overrides, prepend_hydra, skip_missing)
    key = repr((config_name, overrides.override_choices, prepend_hydra, skip_missing))
    if key not in _ordered:
        found = _order(repo, config_name, overrides, prepend_hydra, skip_missing)
        _ordered[key] = pickle.dumps((found, overrides.__dict__))
    found, state = pickle.loads(_ordered[key])
    overrides.__dict__ |= {**state, "config_overrides": overrides.config_overrides}
    return found
