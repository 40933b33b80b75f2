"""Digests of the user code that a run consists of, so that a study notices a change."""

from __future__ import annotations

import ast
import dis
import inspect
import linecache
import os
import sys
import textwrap
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache, partial
from hashlib import sha256
from itertools import islice, pairwise
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

from dropsearch._compat.lightning import is_lightning_class
from dropsearch.core.attributes import attributes
from dropsearch.core.printable import comparable_values, is_secret_key
from dropsearch.core.user_errors import LIBRARIES
from dropsearch.datasets.batch_digest import PLACES

MOST_PARTS = 20_000
"""Objects that are looked at."""
MOST_ITEMS = 100
"""Items of a container that are looked at."""
_SETTINGS = (bool, int, float, str, type(None))
_CONTAINERS = (dict, list, tuple, set, frozenset)


def code_digests(roots: Iterable[Any]) -> dict[str, str]:
    """Return digests of the user code that objects, classes and functions consist of, by qualified name.

    These are the classes of the objects and of what they hold, with their bases, the functions and classes that their
    code names, and settings at the top of a file or in a closure. Comments, docstrings and type hints do not count. Of
    installed packages only the classes of the roots count. What has no source is left out.
    """
    texts: defaultdict[str, set[str]] = defaultdict(set)  # two definitions may have one name
    seen: dict[int, Any] = {}  # which keeps their identity
    pending = deque(roots)  # what is nearest to the roots comes first
    for root in pending:
        _note_installed(texts, root if isinstance(root, type) else type(root))
    while pending and len(seen) < MOST_PARTS:
        with suppress(Exception):  # objects of users may raise anything; what does is left out
            value = pending.popleft()
            if id(value) not in seen and not isinstance(value, (*_SETTINGS, Tensor, ModuleType)):
                seen[id(value)] = value
                if callable(value):
                    pending.append(inspect.unwrap(value))
                is_definition = isinstance(value, type | FunctionType)
                pending += _noted(texts, value) if is_definition else _held(value)
    return {name: sha256("\n".join(sorted(found)).encode()).hexdigest()[:8] for name, found in texts.items()}


def _held(value: Any) -> Iterable[Any]:
    """Return the class of an object, and what the object holds."""
    if isinstance(value, _CONTAINERS):
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


def _note_installed(texts: defaultdict[str, set[str]], kind: type) -> None:
    """Note a class of an installed package, with its bases in the package."""
    package = kind.__module__.partition(".")[0]
    for each in kind.__mro__:
        is_of_package = each.__module__.partition(".")[0] == package
        if is_of_package and package not in LIBRARIES and not _is_users(each.__module__):
            with suppress(OSError, TypeError):  # it has no source
                texts[f"{each.__module__}.{each.__qualname__}"].add(inspect.getsource(each))


def _noted(texts: defaultdict[str, set[str]], definition: type | FunctionType) -> list[Any]:
    """Note a class or function of the user's and the settings that it reads; return what else it consists of."""
    if not _is_users(definition.__module__):
        return []
    name, functions = f"{definition.__module__}.{definition.__qualname__}", list(_functions(definition))
    parts = [*definition.__mro__[1:]] if isinstance(definition, type) else []
    written = [_text(each) for each in functions]
    for key, value in vars(definition).items() if isinstance(definition, type) else ():
        if isinstance(value, (*_SETTINGS, *_CONTAINERS)) and key[:2] != "__":
            written.append(f"{key} = {_shown(key, _as_written(key, value, [definition]))}")
    if any(written) and None not in written:
        texts[name].add("\n".join(filter(None, written)))
    for key, value in (each for function in functions for each in _read(function, name)):
        parts.append(value)
        if shown := _shown(key, _as_written(key.rpartition(".")[2], value, sys.modules.values())):
            texts[key].add(shown)
    return parts


def _shown(name: str, value: Any) -> str:
    """Return what counts of a value: of a setting what it is, of an object its class, and nothing of a place."""
    if isinstance(value, dict):
        return str({key: _shown(str(key), each) for key, each in value.items()})
    if isinstance(value, list | tuple | set):
        shown = [_shown(name, each) for each in value]
        return str(sorted(shown) if isinstance(value, set) else shown)
    if isinstance(value, _SETTINGS):
        word = name.rpartition(".")[2].lower()
        is_path = isinstance(value, str) and os.sep in value and (os.path.isabs(value) or value[:1] in ".~")
        if word.split("_")[-1] in PLACES or is_path:
            return ""
        return repr(comparable_values(value, word) if is_secret_key(word) else value)
    kind = value if isinstance(value, type | FunctionType) else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def _as_written(name: str, value: Any, owners: Iterable[Any]) -> Any:
    """Return a value, but a container as its module or class states it, for a run may fill it; else its class."""
    if not isinstance(value, _CONTAINERS):
        return value
    for owner in [
        each
        for each in list(owners)
        if vars(each).get(name) is value and _is_users(getattr(each, "__module__", each.__name__))
    ]:
        with suppress(OSError, TypeError, SyntaxError, ValueError):  # it has no source, or the container is computed
            tree: Any = ast.parse(textwrap.dedent(inspect.getsource(owner)))
            for node in tree.body[0].body if isinstance(owner, type) else tree.body:
                targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
                if name in [target.id for target in targets if isinstance(target, ast.Name)]:
                    return ast.literal_eval(node.value)
    return type(value)


def _functions(definition: type | FunctionType) -> Iterator[FunctionType]:
    """Yield a function itself, or the functions that a class defines, with those of properties and decorators."""
    held = list(vars(definition).values()) if isinstance(definition, type) else [definition]
    held += [getattr(each, name, None) for each in held for name in ("__func__", "fget", "fset", "func")]
    held += [inspect.unwrap(each) for each in held if callable(each)]
    yield from {id(f): f for f in held if isinstance(f, FunctionType) and _is_users(f.__globals__["__name__"])}.values()


def _text(function: FunctionType) -> str | None:
    """Return the source of a function without comments, docstring and type hints; empty if there is none.

    It is None if other code runs than stands there, for the file was edited after its import.
    """
    code = function.__code__
    try:
        source = textwrap.dedent(inspect.getsource(code))
    except OSError:
        return ""
    text = "".join(linecache.getlines(code.co_filename))
    # A notebook keeps this flag for its later cells.
    if code not in _compiled(code.co_filename, text, code.co_flags & annotations.compiler_flag):
        return None
    try:
        tree = ast.parse(source)
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


@cache
def _compiled(path: str, text: str, flags: int) -> frozenset[CodeType]:
    """Return the code of all functions of a file, or of a notebook's cell."""
    return frozenset(_codes(compile(text, path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | flags, dont_inherit=True)))


def _read(function: FunctionType, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the globals, attributes of modules and values of a closure that a function reads, by qualified name."""
    scope = function.__globals__
    for code in _codes(function.__code__):
        imported: Any = None
        for step, following in pairwise(dis.get_instructions(code)):
            value = scope.get(step.argval) if step.opname == "LOAD_GLOBAL" else None
            if step.opname == "IMPORT_NAME":
                imported = sys.modules.get(step.argval) or sys.modules.get(f"{scope['__package__']}.{step.argval}")
            elif step.opname == "IMPORT_FROM":
                yield from _attribute(imported, step.argval)
            elif isinstance(value, ModuleType) and following.opname in ("LOAD_ATTR", "LOAD_METHOD"):
                yield from _attribute(value, following.argval)
            elif step.opname == "LOAD_GLOBAL" and step.argval in scope and not isinstance(value, ModuleType):
                yield f"{function.__module__}.{step.argval}", value
    for word, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # not assigned yet
            yield f"{name}.{word}", cell.cell_contents


def _attribute(module: ModuleType | None, name: str) -> Iterator[tuple[str, Any]]:
    if module is not None and _is_users(module.__name__) and name in vars(module):
        yield f"{module.__name__}.{name}", vars(module)[name]


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)
