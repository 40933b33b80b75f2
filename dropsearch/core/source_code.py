"""Digests of the source of user classes and functions: comments, docstrings and type hints do not count."""

from __future__ import annotations
import __future__

import ast
import dis
import functools
import hashlib
import inspect
import linecache
import operator
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

Definition = type | FunctionType
_MISSING = object()


def digest_of(definition: Definition) -> str | None:
    """Return a digest of a class's or function's source; None without one, or if other code runs than stands there.

    Other code runs, for example, where a file was edited after it was imported.
    """
    nodes, codes = _nodes(definition), codes_of(definition)
    texts = {path: _text(path) for path in {code.co_filename for code in codes}}
    written = ((code, texts[code.co_filename]) for code in codes)
    # A dataclass has functions that are written nowhere.
    runs = all(code in _codes(text, code.co_filename, code.co_flags & _FUTURE) for code, text in written if text)
    return short("\n".join(map(ast.unparse, nodes))) if nodes and runs else None


def short(text: str) -> str:
    """Return the first eight digits of a text's sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def functions_of(definition: Definition) -> list[FunctionType]:
    """Return a function itself, or the functions that a class defines, those of its properties included; unwrapped."""
    if isinstance(definition, FunctionType):
        return [definition]
    values = list(vars(definition).values())
    held = [*values, *(getattr(value, name, None) for value in values for name in _WRAPPERS)]
    unwrapped = [inspect.unwrap(each) for each in held if callable(each)]
    return [each for each in unwrapped if isinstance(each, FunctionType) and each.__module__ == definition.__module__]


_WRAPPERS = ("__func__", "fget", "fset", "func")


def codes_of(definition: Definition) -> list[CodeType]:
    """Return the code objects of a definition."""
    return [each.__code__ for each in functions_of(definition)]


def global_names(definition: Definition) -> Iterator[tuple[str, Any]]:
    """Yield the globals that a definition uses, as qualified name and value; modules are looked into."""
    module = sys.modules.get(definition.__module__)
    functions = functions_of(definition)
    scope = vars(module) if module else functions[0].__globals__ if functions else {}
    for node in _nodes(definition):
        yield from _names_in(node, scope, definition.__module__)


def names_in(node: ast.stmt, module: str) -> Iterator[tuple[str, Any]]:
    """Yield the globals that a statement at the top of a module uses, as `global_names`."""
    yield from _names_in(node, vars(sys.modules[module]), module)


def _names_in(node: ast.stmt | ast.Lambda, scope: Mapping[str, Any], module: str) -> Iterator[tuple[str, Any]]:
    statement = node if isinstance(node, ast.stmt) else ast.copy_location(ast.Expr(node), node)
    try:
        loaded = _loaded(compile(ast.fix_missing_locations(ast.Module([statement], [])), "", "exec"))
    except (SyntaxError, ValueError, RecursionError):  # such as a nonlocal name of an outer function
        return
    used = {name: scope[name] for name in loaded & scope.keys()}
    for part in ast.walk(node):
        if isinstance(part, ast.ImportFrom):  # inside a function
            name = _imported(part, scope)
            origin = vars(sys.modules[name]) if name in sys.modules else {}
            yield from ((f"{name}.{each.name}", origin[each.name]) for each in part.names if each.name in origin)
        if isinstance(part, ast.Name | ast.Attribute):
            found, owner = _resolved(part, used, module)
            if found is not _MISSING and not isinstance(found, ModuleType):
                yield owner, found


def _loaded(code: CodeType) -> set[str]:
    """Return the names that code reads and does not assign itself, other than those of its functions' locals."""
    steps = list(dis.get_instructions(code))
    own = {step.argval for step in steps if step.opname == "STORE_NAME"}
    read = {step.argval for step in steps if step.opname in _READS}
    return (read - own).union(*(_loaded(each) for each in code.co_consts if isinstance(each, CodeType)))


_READS = {"LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"}


def _imported(node: ast.ImportFrom, scope: Mapping[str, Any]) -> str:
    package = str(scope.get("__package__") or "").rsplit(".", node.level - 1)[0] if node.level else ""
    return ".".join(filter(None, (package, node.module)))


def _resolved(node: ast.AST, scope: Mapping[str, Any], module: str) -> tuple[Any, str]:
    """Return the value of a name, or of an attribute of a module, and its qualified name."""
    if isinstance(node, ast.Name):
        return scope.get(node.id, _MISSING), f"{module}.{node.id}"
    if isinstance(node, ast.Attribute):
        above, _ = _resolved(node.value, scope, module)
        if isinstance(above, ModuleType):
            return vars(above).get(node.attr, _MISSING), f"{above.__name__}.{node.attr}"
    return _MISSING, ""


def assignments(name: str, module: str) -> list[ast.stmt]:
    """Return the statements of a module, outside of definitions, that assign a name."""
    tree = _tree(getattr(sys.modules.get(module), "__file__", None) or "")
    return [node for node in _statements(tree) if name in _assigned(node)] if tree else []


def imported_as(name: str, module: str) -> str:
    """Return the qualified name of what a module imports under a name by `from … import`; empty if it does not."""
    found = sys.modules.get(module)
    tree = _tree(getattr(found, "__file__", None) or "")
    for node in _statements(tree) if tree else ():
        if isinstance(node, ast.ImportFrom):
            for each in node.names:
                origin = _imported(node, vars(found))
                if name == (each.asname or each.name):
                    return f"{origin}.{each.name}"
                if each.name == "*" and name in vars(sys.modules.get(origin, ast)):
                    return f"{origin}.{name}"
    return ""


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    """Yield the statements of a module, and those within `if`, `try`, `with` and loops."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.stmt) and not _name(inner):
            yield inner
        if not _name(inner):
            yield from _statements(inner)


def _assigned(node: ast.stmt) -> set[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    parts = (part for target in targets if target is not None for part in ast.walk(target))
    return {part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}


def _nodes(definition: Definition) -> list[Any]:
    """Return the statements that define a class or function; empty without a source."""
    codes = codes_of(definition)
    paths = [code.co_filename for code in codes]
    paths.append(getattr(sys.modules.get(definition.__module__), "__file__", None) or "")
    found = (_at(path, definition, codes) for path in dict.fromkeys(paths))
    return next(filter(None, found), [])


def _at(path: str, definition: Definition, codes: list[CodeType]) -> list[Any]:
    """Return the statements in a file that define a class or function; of several with its name, those of its lines."""
    tree = _tree(path)
    level: list[Any] = [tree] if tree else []
    for name in definition.__qualname__.split("."):
        if name != "<locals>":
            level = [inner for node in level for inner in _definitions(node) if _name(inner) == name]
    lines = [code.co_firstlineno for code in codes if code.co_filename == path]
    return [node for node in level if any(_first_line(node) <= line <= node.end_lineno for line in lines)] or level


def _definitions(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the definitions in a statement that are in no other definition."""
    for inner in ast.iter_child_nodes(node):
        if _name(inner):
            yield inner
        else:
            yield from _definitions(inner)


def _name(node: ast.AST) -> str:
    return "<lambda>" if isinstance(node, ast.Lambda) else node.name if isinstance(node, _DEFINES) else ""


_DEFINES = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _first_line(node: Any) -> int:
    return min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])


def _text(path: str) -> str:
    """Return the text of a file, or of a notebook's cell, which is no file."""
    linecache.checkcache(path)
    return "".join(linecache.getlines(path))


def _tree(path: str) -> ast.Module | None:
    """Return the statements of a file without docstrings and type hints; None if it cannot be read."""
    return _parsed(_text(path)) if path else None


_FUTURE = functools.reduce(
    operator.or_, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
)
"""Flags of `from __future__ import …`, which a notebook keeps for its later cells."""


@cache
def _codes(text: str, path: str, flags: int) -> frozenset[CodeType]:
    """Return the code of all functions and classes of a file."""
    found: list[CodeType] = []
    pending = [compile(text, path, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | flags, dont_inherit=True)]
    while pending:
        found.append(pending.pop())
        pending += [each for each in found[-1].co_consts if isinstance(each, CodeType)]
    return frozenset(found)


@cache
def _parsed(text: str) -> ast.Module | None:
    try:
        return _Bare().visit(ast.parse(text))
    except (SyntaxError, ValueError, RecursionError):
        return None


class _Bare(ast.NodeTransformer):
    """Removes docstrings, and the type hints of arguments and results."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if isinstance(node, _DEFINES):
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        return node
