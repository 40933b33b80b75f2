"""Private names of other packages are used in `_compat` alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import dropsearch

ROOT = Path(dropsearch.__file__).parent
DOCUMENTED = {"os._exit", "sys._getframe"}
"""Names of the standard library that are documented in spite of their underscore."""
OWN_REGISTRY = {"torch.utils._pytree"}
"""Private modules that other packages are meant to import: PyTorch asks libraries to register their pytrees there."""


def names_of(tree: ast.AST) -> Iterator[str]:
    """Yield what a file defines or assigns."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
                yield name
            case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                yield name


def private_uses(tree: ast.AST, own: set[str]) -> Iterator[str]:
    """Yield the private names of others that a file uses."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            if ast.unparse(node.value) not in ("self", "cls"):
                yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("dropsearch"):
            words = [*node.module.split("."), *(alias.name for alias in node.names)]
            if any(map(is_private, words)) and node.module not in OWN_REGISTRY:
                yield ast.unparse(node)


def is_private(name: str) -> bool:
    """Whether a name begins with one underscore."""
    return name.startswith("_") and not name.startswith("__")


def test_private_names_of_others_are_used_in_compat_only():
    trees = {path.relative_to(ROOT): ast.parse(path.read_text(encoding="utf-8")) for path in ROOT.rglob("*.py")}
    own = {name for tree in trees.values() for name in names_of(tree)}
    found = [
        f"{path}: {use}"
        for path, tree in trees.items()
        if path.parts[0] != "_compat"
        for use in private_uses(tree, own)
        if use not in DOCUMENTED
    ]
    assert found == []


def test_a_private_name_is_found():
    tree = ast.parse("from torch._C import x\nmodule._buffers\nself._own\nother._mine\nmodule.__dict__\nimport torch")
    assert list(private_uses(tree, {"_mine"})) == ["from torch._C import x", "module._buffers"]
