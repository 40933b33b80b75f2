"""Where dropout is put into a module of the user's own, as `sites.insert` says it, and what `apply` makes of one."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from hydra.utils import get_object
from torch import nn

from dropsearch.config.schema import SitesConfig
from dropsearch.dropout.tools.insert import AFTER_ACTIVATION, Where, inserted_dropout, put_behind, remove_dropout
from dropsearch.dropout.tools.set_rates import set_rates
from dropsearch.training.adapters.batchnorm import put_back, without_batchnorm


def where_of(config: SitesConfig) -> Where | None:
    """Return what stands in `sites.insert`, its types as types; None where nothing is put anywhere."""
    given = config.insert if config.where is None else config.where
    if given is None:
        return None
    listed = [given] if isinstance(given, str | type) else list(given)
    return AFTER_ACTIVATION if listed == [AFTER_ACTIVATION] else [_type(each) or each for each in listed]


def _type(word: Any) -> type[nn.Module] | None:
    """Return the type of parts that a dotted name means; None for a name or a pattern of names."""
    if not isinstance(word, str) or "." not in word or not word.rpartition(".")[2][:1].isupper():
        return None
    try:
        found = get_object(word)
    except Exception:  # a part of the module may be called so, and importing user code may raise anything
        return None
    return found if inspect.isclass(found) and issubclass(found, nn.Module) else None


def insert(module: nn.Module, where: Where | None) -> None:
    """Put dropout into a module at rate 0, as a trial finds it.

    Raises:
        InputError: Nothing in the module is meant, or dropout was inserted there before.
    """
    if where is not None:
        put_behind(module, where, 0.0, "sites.insert")


def apply(module: nn.Module, where: Where | None, rates: Any, *, batchnorm: bool = True) -> None:
    """Make of a module what a search made of it: without BatchNorm where that is said, with dropout, at these rates.

    Raises:
        InputError: The module has not all of the sites; it is as it was then.
    """
    taken = [] if batchnorm else without_batchnorm(module)  # first: what is inserted may hang in its place
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
    """Return the names of the parts behind which dropout was inserted."""
    return [name for name, part in module.named_modules() if inserted_dropout(part)]
