"""The code of user classes and functions that a run consists of, as digests, so that a study notices a change."""

from __future__ import annotations

import ast
import inspect
import os
import sys
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from itertools import islice
from types import MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

from dropsearch._compat.lightning import is_lightning_class
from dropsearch.core.contents import attributes_of
from dropsearch.core.printable import comparable_values, is_secret_key
from dropsearch.core.source_code import (
    Definition,
    assignments,
    digest_of,
    functions_of,
    global_names,
    imported_as,
    names_in,
    short,
)
from dropsearch.core.user_errors import LIBRARIES
from dropsearch.datasets.data_digest import PLACES

MOST_PARTS = 20_000
"""Objects that are looked at."""
MOST_ITEMS = 100
"""Items of a container that are looked at."""
_RELATIVE = ("./", "../", "~")
_INSTALLED = {"site-packages", "dist-packages"}
_SETTINGS = (bool, int, float, str, type(None))


def code_digests(roots: Iterable[Any]) -> dict[str, str]:
    """Return digests of the user code that objects, classes and functions consist of, by qualified name.

    These are the classes of the objects and of what they hold, functions, and the globals that their code uses:
    classes, functions, and settings at the top of a file, which count by their text. Of installed packages only the
    classes of the roots count. What has no source is left out.
    """
    return _Code(roots).found


class _Code:
    def __init__(self, roots: Iterable[Any]) -> None:
        self.found: dict[str, str] = {}
        self._seen: dict[int, Any] = {}
        """What was visited, which keeps its identity."""
        self._pending = deque(roots)  # what is nearest to the roots comes first
        for kind in {root if isinstance(root, Definition) else type(root) for root in self._pending}:
            self._note_installed(kind)
        while self._pending and len(self._seen) < MOST_PARTS:
            with suppress(Exception):  # objects of users may raise anything; what does is left out
                self._visit(self._pending.popleft())

    def _visit(self, value: Any) -> None:
        value = _unwrapped(value)
        if id(value) in self._seen or isinstance(value, (*_SETTINGS, Tensor, ModuleType)):
            return
        self._seen[id(value)] = value
        if isinstance(value, Definition):
            if self._is_users(value.__module__):
                self._define(value)
        elif isinstance(value, dict | list | tuple | set | frozenset):
            items = value.values() if isinstance(value, dict) else value
            self._pending += islice(items, MOST_ITEMS)
        elif isinstance(value, MethodType):
            self._pending.append(value.__self__)
        elif isinstance(value, partial):
            self._pending += [value.func, value.args, value.keywords]
        else:
            self._hold(value)

    def _hold(self, value: Any) -> None:
        """Look at the class of an object and at what the object holds."""
        kind = type(value)
        if is_lightning_class(kind) and not isinstance(value, nn.Module):  # such as a Trainer, which leads everywhere
            return
        self._pending.append(kind)
        is_users = self._is_users(kind.__module__)
        held = attributes_of(value).items()
        self._pending += [part for name, part in held if is_users or name == "_modules" or name[:1] != "_"]

    def _is_users(self, module: str | None) -> bool:
        if _package(module) in LIBRARIES:
            return False
        path = getattr(sys.modules.get(str(module)), "__file__", None) or ""
        return module is not None and _INSTALLED.isdisjoint(path.split(os.sep))

    def _note_installed(self, kind: Definition) -> None:
        """Note a class of an installed package, such as a user's own, with its bases in the package."""
        package = _package(kind.__module__)
        for each in kind.__mro__ if isinstance(kind, type) else (kind,):
            if (
                package not in LIBRARIES
                and _package(each.__module__) == package
                and not self._is_users(each.__module__)
            ):
                self._note(f"{each.__module__}.{each.__qualname__}", digest_of(each))

    def _define(self, definition: Definition) -> None:
        """Note a class or function of the user's, and go on with what it consists of."""
        name = f"{definition.__module__}.{definition.__qualname__}"
        if name.rpartition(".")[0] not in self.found:  # else it is a method, in the source of its class
            self._note(name, digest_of(definition))
        for named, value in global_names(definition):
            self._name(named, value)
        if isinstance(definition, type):
            self._pending += definition.__mro__[1:]
        for function in functions_of(definition):
            for word, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
                with suppress(ValueError):  # not assigned yet
                    self._closed(f"{name}.{word}", cell.cell_contents)

    def _note(self, name: str, digest: str | None) -> None:
        """Note a digest; two definitions may have one name."""
        if digest is not None:
            before = self.found.get(name, digest)
            self.found[name] = digest if before == digest else short("".join(sorted((before, digest))))

    def _closed(self, name: str, value: Any) -> None:
        if isinstance(value, _SETTINGS):
            self._set(name, value, repr(value))
        else:
            kind = value if isinstance(value, Definition) else type(value)
            self._note(name, short(f"{kind.__module__}.{kind.__qualname__}"))
            self._pending.append(value)

    def _name(self, name: str, value: Any) -> None:
        """Note a setting at the top of a file; go on with a class, a function, or an object."""
        module, _, word = name.rpartition(".")
        is_setting = self._is_users(module) and not word.startswith("__")
        if is_setting and (nodes := assignments(word, module)):
            if name in self.found:
                return
            self._set(name, value, "\n".join(map(ast.unparse, nodes)))
            for named, part in (each for node in nodes for each in names_in(node, module)):
                if named != name:
                    self._name(named, part)
            self._pending.append(value)
        elif is_setting and (origin := imported_as(word, module)):
            self._name(origin, value)
        elif not is_setting or isinstance(_unwrapped(value), Definition):
            self._pending.append(value)

    def _set(self, name: str, value: Any, text: str) -> None:
        """Note a setting, unless it is the place of something; of a secret, what may be compared."""
        key = name.rpartition(".")[2].lower()
        is_path = isinstance(value, os.PathLike) or (isinstance(value, str) and _is_path(value))
        if key.split("_")[-1] in PLACES or is_path:
            return
        if is_secret_key(key):
            text = str(comparable_values(value, key)) if isinstance(value, str | int | float) else ""
        self._note(name, short(text))


def _unwrapped(value: Any) -> Any:
    return inspect.unwrap(value) if callable(value) else value


def _is_path(text: str) -> bool:
    return os.sep in text and (os.path.isabs(text) or text.startswith(_RELATIVE) or os.path.exists(text))


def _package(module: str | None) -> str:
    return str(module).partition(".")[0]
