"""Validation of Hydra's command line options, with one-line errors."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from dropsearch.config.messages import GROUPS
from dropsearch.core.errors import InputError, close_match
from dropsearch.core.override_text import leaves

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
