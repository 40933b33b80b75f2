"""Digests of the user code that a run consists of, so that a study notices a change."""

from __future__ import annotations

import ast
import dis
import inspect
import os
import sys
import textwrap
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from hashlib import sha256
from itertools import islice, pairwise
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

from dropsearch._compat.lightning import is_lightning_class
from dropsearch.core.attributes import attributes
from dropsearch.core.printable import is_secret_key
from dropsearch.core.user_errors import LIBRARIES
from dropsearch.datasets.batch_digest import PLACES

MOST_PARTS = 20_000
"""Objects that are looked at."""
MOST_ITEMS = 100
"""Items of a container that are looked at."""
_SETTINGS = (bool, int, float, str, type(None))


def code_digests(roots: Iterable[Any]) -> dict[str, str]:
    """Return digests of the user code that objects, classes and functions consist of, by qualified name.

    These are the classes of the objects and of what they hold, with their bases, the functions and classes that their
    code names, and numbers and texts at the top of a file or in a closure. Comments, docstrings and type hints do not
    count, nor does code of installed packages; what has no source is left out.
    """
    texts: defaultdict[str, set[str]] = defaultdict(set)  # two definitions may have one name
    seen: dict[int, Any] = {}  # which keeps their identity
    pending = deque(roots)  # what is nearest to the roots comes first
    while pending and len(seen) < MOST_PARTS:
        with suppress(Exception):  # objects of users may raise anything; what does is left out
            value = pending.popleft()
            value = inspect.unwrap(value) if callable(value) else value
            if id(value) not in seen and not isinstance(value, (*_SETTINGS, Tensor, ModuleType)):
                seen[id(value)] = value
                is_definition = isinstance(value, type | FunctionType)
                pending += _noted(texts, value) if is_definition else _held(value)
    return {name: sha256("\n".join(sorted(found)).encode()).hexdigest()[:8] for name, found in texts.items()}


def _held(value: Any) -> Iterable[Any]:
    """Return the class of an object, and what the object holds."""
    if isinstance(value, dict | list | tuple | set | frozenset):
        return islice(value.values() if isinstance(value, dict) else value, MOST_ITEMS)
    if isinstance(value, MethodType):
        return [value.__self__]
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    kind = type(value)
    if is_lightning_class(kind) and not isinstance(value, nn.Module):  # such as a Trainer, which leads everywhere
        return []
    is_users = _is_users(kind.__module__)
    held = attributes(value).items()
    return [kind, *(part for name, part in held if is_users or name == "_modules" or name[:1] != "_")]


def _is_users(module: str | None) -> bool:
    path = getattr(sys.modules.get(str(module)), "__file__", None) or ""
    is_installed = {"site-packages", "dist-packages"} & {*path.split(os.sep)}
    return module is not None and module.partition(".")[0] not in LIBRARIES and not is_installed


def _noted(texts: defaultdict[str, set[str]], definition: type | FunctionType) -> list[Any]:
    """Note a class or function of the user's and the settings that it reads; return what else it consists of."""
    if not _is_users(definition.__module__):
        return []
    name, functions = f"{definition.__module__}.{definition.__qualname__}", list(_functions(definition))
    parts = [*definition.__mro__[1:]] if isinstance(definition, type) else []
    own = vars(definition).items() if isinstance(definition, type) else ()
    settings = [f"{key} = {each!r}" for key, each in own if isinstance(each, _SETTINGS) and key[:2] != "__"]
    if written := [*filter(None, map(_text, functions)), *settings]:
        texts[name].add("\n".join(written))
    for key, value in (each for function in functions for each in _read(function, name)):
        if not isinstance(value, _SETTINGS):
            parts.append(value)
            kind = value if isinstance(value, type | FunctionType) else type(value)
            texts[key].add(f"{kind.__module__}.{kind.__qualname__}")
        elif not _is_place(key, value):
            texts[key].add(repr(value))
    return parts


def _functions(definition: type | FunctionType) -> Iterator[FunctionType]:
    """Yield a function itself, or the functions that a class defines, those of its properties included."""
    held = list(vars(definition).values()) if isinstance(definition, type) else [definition]
    held += [getattr(each, name, None) for each in held for name in ("__func__", "fget", "fset", "func")]
    unwrapped = (inspect.unwrap(each) for each in held if callable(each))
    yield from (f for f in unwrapped if isinstance(f, FunctionType) and f.__module__ == definition.__module__)


def _text(function: FunctionType) -> str:
    """Return the source of a function without comments, docstring and type hints; empty if it has none."""
    source = ""
    try:
        source = textwrap.dedent(inspect.getsource(function))
        tree = ast.parse(source)
    except OSError:
        return ""
    except SyntaxError:  # a lambda among the arguments of a call
        return source.strip()
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _read(function: FunctionType, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the globals, attributes of modules and values of a closure that a function reads, by qualified name."""
    scope = function.__globals__
    for step, following in (
        pair for code in _codes(function.__code__) for pair in pairwise(dis.get_instructions(code))
    ):
        if step.opname == "LOAD_GLOBAL" and step.argval in scope:
            value = scope[step.argval]
            if not isinstance(value, ModuleType):
                yield f"{function.__module__}.{step.argval}", value
            elif _is_users(value.__name__) and following.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                yield f"{value.__name__}.{following.argval}", vars(value).get(following.argval)
    for word, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # not assigned yet
            yield f"{name}.{word}", cell.cell_contents


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


def _is_place(name: str, value: Any) -> bool:
    """Return whether a setting is the place of something, or a secret."""
    words = name.rpartition(".")[2].lower().split("_")
    is_path = isinstance(value, str) and os.sep in value and (os.path.isabs(value) or value[:1] in ".~")
    return words[-1] in PLACES or is_path or is_secret_key("_".join(words))
