"""Modules and data of the user's own on the command line: what is chosen with them, and which keys are free."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dropsearch.config.schema import USER, UserDataConfig, UserModelConfig

USER_ARMS = ("none", "typical", "dropout_shared", "dropout")
"""The arms of a module of the user's own: BatchNorm cannot be put into it without guessing where."""

_USER_TYPES = {"model": UserModelConfig, "data": UserDataConfig}
_FREE = re.compile(
    r"^(?:(model|data)\.(?!_target_=|name=)|arm_args(?:\.|=)|trainer\.(?!max_epochs=|accelerator=|precision=))"
)
_KINDS = re.compile(r"^sites\.kinds(?:=|\.(?P<site>[^=]+)=)(?P<value>.*)$", re.DOTALL)
_SEVERAL_TRACKERS = re.compile(r"^tracking=(?=\[)")
"""A group has one option: several trackers are a list of names."""
_QUOTED = re.compile(r"""(["'])([^"':{},]+)\1(\s*:)""")
_TARGET = re.compile(r"^\+{0,2}(model|data)\._target_=")


def with_user_targets(arguments: Sequence[str]) -> list[str]:
    """Return a command line that chooses nothing of ours where it names a class of the user's own.

    ``model._target_=mine.Net`` becomes that and what it needs: no built-in model, the schema of a class of the
    user's own, and the arms that can be built for it, unless the user names arms. Arguments of the user's classes
    and names of sites need no ``+`` before them.
    """
    arguments = [_SEVERAL_TRACKERS.sub("tracking.name=", _with_sites(argument)) for argument in arguments]
    found = {match[1] for argument in arguments if (match := _TARGET.match(argument))}
    if not found or any(argument.startswith(("--config-name", "-cn")) for argument in arguments):
        return arguments
    added = [word for group in sorted(found) for word in (f"~{group}", f"+schema/{group}@{group}={USER}")]
    if "model" in found and not any(argument.startswith("arms=") for argument in arguments):
        added.append(f"arms=[{','.join(USER_ARMS)}]")
    return [*(_added(argument, found) for argument in arguments), *added]


def _with_sites(argument: str) -> str:
    given = _KINDS.match(argument)
    if given is None:
        return argument
    value = f"{{{given['site']}: {given['value']}}}" if given["site"] else given["value"]
    # Hydra's grammar has neither quotes nor # in a key; the names of sites are patterns, in which ? stands for any
    # character.
    value = _QUOTED.sub(r"\2\3", value).replace("#", "?")
    return f"++sites.kinds={value}"


def _added(argument: str, found: set[str]) -> str:
    free = _FREE.match(argument)
    return f"++{argument}" if free and (free[1] or "model") in found else argument


def is_free(key: str, chosen: Sequence[type]) -> bool:
    """Say whether a key is the user's to name: an argument of a class, an arm's arguments, one of the Trainer's.

    Args:
        key: The key, with dots.
        chosen: The schemas in use.
    """
    group = key.partition(".")[0]
    if group in _USER_TYPES:
        return _USER_TYPES[group] in chosen
    return key.startswith(("arm_args.", "trainer.")) and UserModelConfig in chosen
