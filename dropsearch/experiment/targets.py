"""Importing and building user classes by their dotted names."""

from __future__ import annotations

import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from hydra.utils import get_object, instantiate

from dropsearch.config.schema import arguments
from dropsearch.core.constraints import argument_annotations
from dropsearch.core.errors import InputError, close_match, first_cause
from dropsearch.core.override_text import literal
from dropsearch.core.records.arms import RATES_BY_SITE
from dropsearch.core.user_errors import USER_ERRORS, described
from dropsearch.training.adapters.hyperparameters import accepted


def imported(target: str, key: str) -> Any:
    """Return the class or function with a dotted name, also from the working folder."""
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())  # missing in the console script, unlike `python -m`
    try:
        found = get_object(target)
    except USER_ERRORS as error:  # imports of user code may raise anything
        message = " ".join(first_cause(error).split())[:200] if isinstance(error, Exception) else described(error)
        raise InputError(
            f'{key} must name a class that can be imported from {os.getcwd()}, got "{target}"{_meant(target)} '
            f"({message}): write it as package.module.Class"
        ) from error
    if not callable(found):
        raise InputError(f'{key} must name a class or a function, got "{target}", a {type(found).__name__}')
    return found


def _meant(target: str) -> str:
    """Return a suggestion if one part of a dotted name is misspelt."""
    parts = target.split(".")
    paths = [".".join(parts[:depth]) for depth in range(1, len(parts))]
    depth = next((depth for depth, path in enumerate(paths) if path not in sys.modules), len(paths))
    above = ".".join(parts[:depth])
    folders = list(getattr(sys.modules[above], "__path__", [])) if above else [os.getcwd()]
    held = [name for name, value in vars(sys.modules[above]).items() if callable(value)] if above else []
    near = close_match(parts[depth], [*held, *(module.name for module in pkgutil.iter_modules(folders))])
    whole = ".".join([*parts[:depth], r"\1", *parts[depth + 1 :]])
    return re.sub(r'"(.*)"', f'"{whole}"', near)


def instantiated(
    target: str, given: Mapping[str, Any], group: str, as_they_are: Mapping[str, Any] = MappingProxyType({})
) -> Any:
    """Build a class with Hydra's `instantiate`, including `_convert_`, `_recursive_`, `_partial_` and `_args_`.

    Args:
        given: Arguments of the configuration: nested groups are passed as `DictConfig`, or built if they have a
            `_target_`.
        as_they_are: Arguments that are passed unchanged.
    """
    try:
        make = instantiate(as_text({**given, "_target_": target, "_partial_": True}))
        return partial(make, **as_they_are) if given.get("_partial_") else make(**as_they_are)
    except USER_ERRORS as error:
        if (refusal := _refusal(error)) is not None:  # the class raised its own message
            raise InputError(str(refusal)) from error
        message, cause = " ".join(first_cause(error).split())[:300], error.__cause__ or error
        raise InputError(
            f"{group}={target} cannot be built: {type(cause).__name__}: {message}{_to_give(cause, message, group)}"
        ) from error


def as_text(given: Any, recursive: bool = True, converts: bool = False) -> Any:
    """Return a resolved configuration for Hydra's `instantiate`, which resolves it again: ``${a}`` in it is text.

    Hydra resolves arguments of a class twice, and once more what a `DictConfig` or `ListConfig` holds that it makes.

    Args:
        given: A value of the configuration.
        recursive: Whether Hydra goes into it (`_recursive_`).
        converts: Whether Hydra makes plain dictionaries and lists of it (`_convert_`).
    """
    if isinstance(given, Mapping):
        recursive = given.get("_recursive_", recursive)
        converts = given["_convert_"] not in (None, "none") if "_convert_" in given else converts
        times = 2 if "_target_" in given or converts or not recursive else 3
        return {name: _escaped(as_text(value, recursive, converts), times) for name, value in given.items()}
    if isinstance(given, list | tuple):
        return [_escaped(as_text(each, recursive, converts), 2 if converts or not recursive else 3) for each in given]
    return given


def _escaped(value: Any, times: int) -> Any:
    return _escaped(literal(value), times - 1) if isinstance(value, str) and times else value


HYDRAS = ("_convert_", "_recursive_")
"""What a configuration says of how Hydra makes the arguments of a class."""


def is_nested(value: Any) -> bool:
    """Return whether Hydra makes an argument of a value: of a group, or a list that holds groups."""
    return isinstance(value, Mapping) or (isinstance(value, list | tuple) and any(map(is_nested, value)))


def is_plain(value: Any) -> bool:
    """Return whether a value consists of numbers, texts, lists and mappings, which can be written."""
    if isinstance(value, list | tuple | dict):
        return all(map(is_plain, value.values() if isinstance(value, dict) else value))
    return value is None or type(value) in (bool, int, float, str)


def made_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that a class gets for those of a configuration: nested groups are those of Hydra."""
    nested = {name: value for name, value in given.items() if is_nested(value)}
    flat = {name: value for name, value in given.items() if name not in nested and not name.startswith("_")}
    how = {name: value for name, value in given.items() if name in HYDRAS}
    return {**flat, **instantiate(as_text({"_target_": "builtins.dict", **how, **nested}))} if nested else flat


def _refusal(error: BaseException | None) -> InputError | None:
    """Return the `InputError` in a chain of exceptions, or None."""
    while error is not None and not isinstance(error, InputError):
        error = error.__cause__ or error.__context__
    return error


def _to_give(cause: BaseException, message: str, group: str) -> str:
    """Return a hint with the keys of missing constructor arguments."""
    if not isinstance(cause, TypeError) or "missing" not in message:
        return ""
    missing = re.findall(r"'(\w+)'", message.partition("missing")[2])
    return f": set {' '.join(f'{group}.{name}=VALUE' for name in missing)}" if missing else ""


def named_arguments(chosen: Any, target: Any) -> dict[str, Any]:
    """Return the arguments of a class, including `name` if the user sets it and the class accepts it."""
    own_name = chosen.name != chosen._target_.rpartition(".")[2] and "name" in accepted(target)[0]
    return {**({"name": chosen.name} if own_name else {}), **arguments(chosen)}


def given_names(chosen: Any) -> list[str]:
    """Return the names of given arguments, without Hydra's, which start with an underscore."""
    return [name for name in arguments(chosen) if not name.startswith("_")]


def of_data(target: Any, given: Mapping[str, Any], source: Any) -> dict[str, Any]:
    """Return required arguments of a class that are not given but are attributes of the data module.

    For example, a class gets ``num_classes`` or ``input_shape`` from its data.
    """
    data = getattr(source, "module", source)
    return {name: getattr(data, name) for name in required(target) if name not in given and hasattr(data, name)}


def required(target: Any) -> list[str]:
    """Return the names of the arguments of a class or function that have no default."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return []
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [each.name for each in parameters if each.default is each.empty and each.kind in named]


def takes_rates(target: Any) -> str:
    """Return the argument that accepts all rates by site name; empty if there is none.

    Its annotation is `dropsearch.models.network.Rates`. A checkpoint then contains the rates of its trial.
    """
    known = argument_annotations(target).items()
    return next((name for name, each in known if RATES_BY_SITE in getattr(each, "__metadata__", ())), "")


def check_arguments(group: str, chosen: Any, target: Any) -> None:
    """Check the argument names of a group's class."""
    names, open_ended = accepted(target)
    if not open_ended:
        check_names(group, given_names(chosen), names, chosen.name)


def check_names(key: str, given: Iterable[str], names: set[str], owner: str) -> None:
    """Check that names are arguments of a class or function."""
    for name in given:
        if name not in names:
            raise InputError(
                f'{key} must name arguments of {owner}, got "{name}"{close_match(name, names)}: it takes '
                f"{', '.join(sorted(names)) or 'none'}"
            )
