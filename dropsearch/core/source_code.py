"""Digests of the source of user classes and functions: comments, docstrings and type hints do not count."""

from __future__ import annotations

import ast
import hashlib
import linecache
import os
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any

Definition = type | FunctionType
_MISSING = object()


def digest_of(definition: Definition) -> str:
    """Return a digest of a class's or function's source; of its bytecode where there is no source."""
    nodes = _nodes(definition)
    text = "\n".join(map(ast.unparse, nodes)) if nodes else repr(sorted(map(_bytecode, codes_of(definition))))
    return short(text)


def short(text: str) -> str:
    """Return the first eight digits of a text's sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def functions_of(definition: Definition) -> list[FunctionType]:
    """Return a function itself, or the functions that a class defines, those of its properties included."""
    if isinstance(definition, FunctionType):
        return [definition]
    values = list(vars(definition).values())
    held = [*values, *(getattr(value, name, None) for value in values for name in _WRAPPERS)]
    return [each for each in held if isinstance(each, FunctionType) and each.__module__ == definition.__module__]


_WRAPPERS = ("__func__", "fget", "fset", "func", "__wrapped__")


def codes_of(definition: Definition) -> list[CodeType]:
    """Return the code objects of a definition."""
    return [each.__code__ for each in functions_of(definition)]


def global_names(definition: Definition) -> Iterator[tuple[str, Any]]:
    """Yield what a definition's code names outside of itself, as qualified name and value; modules are looked into."""
    scope = scope_of(definition)
    nodes = _nodes(definition)
    if not nodes:
        names = {name for code in codes_of(definition) for name in code.co_names}
        yield from ((f"{definition.__module__}.{name}", scope[name]) for name in sorted(names & scope.keys()))
    for node in (part for each in nodes for part in ast.walk(each)):
        yield from _named(node, scope, definition.__module__)


def _named(node: ast.AST, scope: Mapping[str, Any], module: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, ast.ImportFrom):  # inside a function
        package = str(scope.get("__package__") or "").rsplit(".", node.level - 1)[0] if node.level else ""
        name = ".".join(filter(None, (package, node.module)))
        origin = vars(sys.modules[name]) if name in sys.modules else {}
        yield from ((f"{name}.{each.name}", origin[each.name]) for each in node.names if each.name in origin)
    if isinstance(node, ast.Name | ast.Attribute):
        found, owner = _resolved(node, scope, module)
        if found is not _MISSING and not isinstance(found, ModuleType):
            yield owner, found


def _resolved(node: ast.AST, scope: Mapping[str, Any], module: str) -> tuple[Any, str]:
    """Return the value of a name, or of an attribute of a module, and its qualified name."""
    if isinstance(node, ast.Name):
        return scope.get(node.id, _MISSING), f"{module}.{node.id}"
    if isinstance(node, ast.Attribute):
        above, _ = _resolved(node.value, scope, module)
        if isinstance(above, ModuleType):
            return vars(above).get(node.attr, _MISSING), f"{above.__name__}.{node.attr}"
    return _MISSING, ""


def scope_of(definition: Definition) -> Mapping[str, Any]:
    """Return the globals of a definition."""
    functions, module = functions_of(definition), sys.modules.get(definition.__module__)
    return functions[0].__globals__ if functions else vars(module) if module else {}


def assignment(name: str, module: str) -> ast.AST | None:
    """Return the top-level statement of a module that assigns a name, or None."""
    tree = _tree(getattr(sys.modules.get(module), "__file__", None) or "")
    for node in tree.body if tree else ():
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return node
    return None


def names_in(node: ast.AST, module: str) -> Iterator[tuple[str, Any]]:
    """Yield what a statement of a module names, as `global_names`."""
    scope = vars(sys.modules[module])
    for part in ast.walk(node):
        yield from _named(part, scope, module)


def _nodes(definition: Definition) -> list[ast.AST]:
    """Return the statements that define a class or function; empty without a source."""
    codes = codes_of(definition)
    paths = [code.co_filename for code in codes]
    paths.append(getattr(sys.modules.get(definition.__module__), "__file__", None) or "")
    found = (_at(path, definition, codes) for path in dict.fromkeys(paths))
    return next(filter(None, found), [])


def _at(path: str, definition: Definition, codes: list[CodeType]) -> list[ast.AST]:
    """Return the statements in a file that define a class or function; of several with its name, those of its lines."""
    tree = _tree(path)
    level: list[ast.AST] = [tree] if tree else []
    for name in definition.__qualname__.split("."):
        if name != "<locals>":
            level = [inner for node in level for inner in _definitions(node) if _name(inner) == name]
    lines = [code.co_firstlineno for code in codes if code.co_filename == path]
    return [node for node in level if any(_first_line(node) <= line <= _last_line(node) for line in lines)] or level


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


def _last_line(node: Any) -> int:
    return node.end_lineno


@cache
def _parsed(text: str) -> ast.Module | None:
    try:
        return _Bare().visit(ast.parse(text))
    except (SyntaxError, ValueError, RecursionError):
        return None


def _tree(path: str) -> ast.Module | None:
    """Return the statements of a file, or of a notebook's cell, which is no file."""
    try:
        return _of_file(path, os.stat(path).st_mtime_ns)
    except OSError:
        return _parsed("".join(linecache.getlines(path)))


@cache
def _of_file(path: str, _changed: int) -> ast.Module | None:
    linecache.checkcache(path)
    return _parsed("".join(linecache.getlines(path)))


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


def _bytecode(code: CodeType) -> str:
    """Return what a function computes, without line numbers."""
    constants = [_bytecode(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    return repr((code.co_name, code.co_code.hex(), code.co_names, code.co_varnames, constants))
