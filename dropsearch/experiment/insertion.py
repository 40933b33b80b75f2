"""Insertion of dropout into user modules by `sites.insert`, and `apply` for `SearchResult`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from hydra.utils import get_object
from torch import nn

from dropsearch.config.schema import SitesConfig
from dropsearch.dropout.tools.insert import AFTER_ACTIVATION, Where, inserted_dropout, put_behind, remove_dropout
from dropsearch.dropout.tools.set_rates import set_rates
from dropsearch.training.adapters.layers import put_back, without_batchnorm


def where_of(config: SitesConfig) -> Where | None:
    """Return `sites.insert` with dotted names converted to types; None if nothing is inserted."""
    given = config.insert if config.where is None else config.where
    if given is None:
        return None
    listed = [given] if isinstance(given, str | type) else list(given)
    return AFTER_ACTIVATION if listed == [AFTER_ACTIVATION] else [_type(each) or each for each in listed]


def _type(word: Any) -> type[nn.Module] | None:
    """Return the type with a dotted name; None for names and patterns of submodules."""
    if not isinstance(word, str) or "." not in word or not word.rpartition(".")[2][:1].isupper():
        return None
    try:
        found = get_object(word)
    except Exception:  # the name may be that of a submodule, and an import may raise anything
        return None
    return found if inspect.isclass(found) and issubclass(found, nn.Module) else None


def insert(module: nn.Module, where: Where | None) -> None:
    """Insert dropout at rate 0 into the module of a trial."""
    if where is not None:
        put_behind(module, where, 0.0, "sites.insert")


def apply(module: nn.Module, where: Where | None, rates: Any, *, batchnorm: bool = True) -> None:
    """Change a module as a search did: remove BatchNorm if requested, insert dropout, and set rates.

    Raises:
        InputError: The module lacks a site; it is unchanged then.
    """
    taken = [] if batchnorm else without_batchnorm(module)  # first, since dropout may be inserted after its replacement
    fresh = not inserted_names(module)
    try:
        if fresh:
            insert(module, where)
        set_rates(module, rates)
    except BaseException:
        if fresh:
            remove_dropout(module)
        put_back(taken)
        raise


def inserted_names(module: nn.Module) -> Sequence[str]:
    """Return the names of the submodules with inserted dropout."""
    return [name for name, part in module.named_modules() if inserted_dropout(part)]
