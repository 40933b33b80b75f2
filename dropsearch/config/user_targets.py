"""Classes that are named on the command line, ``model._target_=mine.Net``, and the names of sites."""

from __future__ import annotations

import re
from collections.abc import Sequence

_KINDS = re.compile(r"^sites\.kinds(?:=|\.(?P<site>[^=]+)=)(?P<value>.*)$", re.DOTALL)
_SEVERAL_TRACKERS = re.compile(r"^tracking=(?=\[)")
"""A group has one option: several trackers are a list of names."""
_QUOTED = re.compile(r"""(["'])([^"':{},]+)\1(\s*:)""")
_TARGET = re.compile(r"^\+{0,2}(model|data)\._target_=")


def with_user_targets(arguments: Sequence[str]) -> list[str]:
    """Return a command line that leaves out the option of a group where it names another class.

    ``model._target_=mine.Net`` becomes that and ``~model``: the arguments of conf/model/mlp.yaml are not those of
    another class. Names of sites need no ``+`` before them.
    """
    arguments = [_SEVERAL_TRACKERS.sub("tracking.name=", _with_sites(argument)) for argument in arguments]
    found = {match[1] for argument in arguments if (match := _TARGET.match(argument))}
    found -= {argument.partition("=")[0] for argument in arguments}
    if any(argument.startswith(("--config-name", "-cn")) for argument in arguments):
        return arguments
    return [*arguments, *(f"~{group}" for group in sorted(found))]


def _with_sites(argument: str) -> str:
    given = _KINDS.match(argument)
    if given is None:
        return argument
    value = f"{{{given['site']}: {given['value']}}}" if given["site"] else given["value"]
    # Hydra's grammar has neither quotes nor # in a key; the names of sites are patterns, in which ? stands for any
    # character.
    value = _QUOTED.sub(r"\2\3", value).replace("#", "?")
    return f"++sites.kinds={value}"
