"""The command line: its options are checked, and overrides for user classes and for names of sites rewritten."""

from __future__ import annotations

import os
import re
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from dropsearch.config.messages import GROUPS, conf_folder
from dropsearch.config.user_files import CONFIG_DIR, CONFIG_NAME, UserFiles, option
from dropsearch.core.errors import InputError, close_match
from dropsearch.core.override_text import leaves, written

_MAY_BE_SEVERAL = ("experiment", "tracking")
_SEVERAL = re.compile(
    rf"\+{{0,2}}({'|'.join(group for group in GROUPS if group not in _MAY_BE_SEVERAL)})=\[.*,.*\]$", re.DOTALL
)
_RERUN = "--experimental-rerun"


@contextmanager
def option_errors() -> Iterator[None]:
    """Make argument parsers raise `InputError` instead of printing their usage and exiting."""
    error = ArgumentParser.error
    ArgumentParser.error = _refuse  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        ArgumentParser.error = error  # type: ignore[method-assign]


def _refuse(parser: ArgumentParser, message: str) -> NoReturn:
    unknown = re.match(r"unrecognized arguments: ([^\s=]+)", message)
    hint = close_match(unknown[1], re.findall(r"--[\w-]+", parser.format_usage())) if unknown else ""
    raise InputError(f"options must be those of Hydra ({message}){hint}: python -m dropsearch --help shows them")


def check_options(arguments: Sequence[str]) -> None:
    """Reject the option that unpickles a file, which can run any code, and groups with several options."""
    for word in arguments:
        if not word.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in word):
            raise InputError(
                f"the command line must be text in the locale's encoding, {sys.getfilesystemencoding()}, got {word!r}: "
                "set LC_ALL=C.UTF-8, or PYTHONUTF8=1"
            )
        if several := _SEVERAL.match(word):
            group = several[1]
            raise InputError(f"{group} must be one option, got several: {group}=A,B with -m runs one after the other")
        name = word.partition("=")[0]
        if len(name) > 2 and _RERUN.startswith(name):
            raise InputError(
                f"{name} must be left out, because it unpickles a file, which can run code: repeat the overrides"
            )


def set_keys(override: str) -> list[str]:
    """Return the keys that an override sets: its key, or those of its mapping."""
    key, _, _ = override.partition("=")
    key = key.lstrip("+~").partition("@")[0]
    try:
        value = OverridesParser.create().parse_override(override).value()
    except HydraException:  # composing reports the error
        return [key]
    return [name for name, _ in leaves(value, key)]


_KINDS = re.compile(r"^sites\.kinds(?:=|\.(?P<site>[^=]+)=)(?P<value>.*)$", re.DOTALL)
_SEVERAL_TRACKERS = re.compile(r"^tracking=(?=\[)")
"""Several trackers are rewritten as a list of names, because a Hydra group has one option."""
_UNIT = re.compile(r"^\+{0,2}monitor\.unit=")
"""Rewritten as `unit`, because `monitor` is a name and has no keys."""
_QUOTED = re.compile(r"""(["'])([^"':{},]+)\1(\s*:)""")
_TARGET = re.compile(r"^\+{0,2}(model|data)\._target_=")
_SEARCHPATH = re.compile(r"^\+{0,2}hydra\.searchpath=(.*)$", re.DOTALL)
_KEY = re.compile(r"^(?P<key>[a-z_][\w.]*)=")
_QUIET = ("hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=disabled", "hydra/hydra_logging=disabled")
"""Settings of conf/config.yaml for Hydra's files, added for other primary configuration files."""


def with_user_targets(arguments: Sequence[str]) -> list[str]:
    """Return a command line that drops the default option of a group if another class is set.

    ``model._target_=mine.Net`` gets ``~model``, because the arguments of conf/model/mlp.yaml belong to another class.
    The same holds if a user's configuration file sets the class. Names of sites are prefixed by ``+``, as are all keys
    if a user's configuration file lacks the schema.
    """
    arguments = _at_top(arguments)
    arguments = [_UNIT.sub("unit=", _with_sites(argument)) for argument in arguments]
    arguments = [_SEVERAL_TRACKERS.sub("tracking.name=", argument) for argument in arguments]
    files = UserFiles.named_by(arguments)
    keys = {argument.partition("=")[0] for argument in arguments}
    found = {match[1] for argument in arguments if (match := _TARGET.match(argument))} | files.targets
    if files.has_groups:
        arguments += [f"~{group}" for group in sorted(found & {"model", "data"} - keys)]
    if files.primary is None:
        return arguments
    if not files.has_groups:
        arguments = [_added(argument, files.chosen) for argument in arguments]
    if not files.has_schema:
        arguments = list(map(_new, arguments))
    return [*arguments, *(word for word in _QUIET if word.partition("=")[0] not in keys)]


def _at_top(arguments: Sequence[str]) -> list[str]:
    """Return a command line whose ``--config-name SUB/NAME`` is NAME in the folder SUB, beside the groups above it.

    Hydra puts the keys of a file in a folder under the name of that folder, and looks for its groups there.
    """
    folder, name = option(arguments, *CONFIG_DIR), option(arguments, *CONFIG_NAME)
    if folder is None or name is None or not Path(folder, f"{name.removesuffix('.yaml')}.yaml").is_file():
        return list(arguments)
    below, _, last = name.removesuffix(".yaml").rpartition("/")
    if not below:
        return list(arguments)
    if (conf_folder() / f"{last}.yaml").is_file():
        raise InputError(
            f'--config-name must end in a name that dropsearch has no file of, got "{name}": rename the file'
        )
    above = f"file://{os.path.abspath(folder)}"
    found = [_SEARCHPATH.match(word) for word in arguments]
    kept = [word for word, match in zip(arguments, found, strict=True) if match is None]
    paths = [match[1].strip("[]") for match in found if match is not None]
    rest = ",".join([*paths, *map(written, UserFiles.named_by(arguments).search_path)])
    return [
        *_with_option(_with_option(kept, os.path.join(folder, below), CONFIG_DIR), last, CONFIG_NAME),
        f"hydra.searchpath=[{','.join(filter(None, [written(above), rest]))}]",
    ]


def _with_option(arguments: Sequence[str], value: str, names: Sequence[str]) -> list[str]:
    """Return a command line with another value of an option that it has."""
    changed = []
    for before, word in zip(["", *arguments], arguments, strict=False):
        given = word.partition("=")
        changed.append(value if before in names else f"{given[0]}={value}" if given[0] in names and given[1] else word)
    return changed


def _added(argument: str, chosen: set[str]) -> str:
    """Return an override that adds an option of a group to a file without it in its defaults list."""
    group = argument.partition("=")[0]
    return f"+{argument}" if group in GROUPS and group not in chosen and "=" in argument else argument


def _new(argument: str) -> str:
    """Return an override that sets a key even if it is not in the schema."""
    given = _KEY.match(argument)
    is_key = given is not None and given["key"] not in GROUPS and not given["key"].startswith("hydra")
    return f"++{argument}" if is_key else argument


def _with_sites(argument: str) -> str:
    given = _KINDS.match(argument)
    if given is None:
        return argument
    value = f"{{{given['site']}: {given['value']}}}" if given["site"] else given["value"]
    # Hydra's grammar allows neither quotes nor # in a key. Names of sites are patterns, in which ? matches any
    # character.
    value = _QUOTED.sub(r"\2\3", value).replace("#", "?")
    return f"++sites.kinds={value}"
