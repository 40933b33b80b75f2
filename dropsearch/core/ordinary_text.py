"""Text that is no secret although a variable of a secret's name may hold it: numbers, paths, words, names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

SHORTEST, LONG = 8, 16
"""Number of characters of text that may be a secret, and of words without a digit that may be one."""
_NUMBER = re.compile(r"[\d\s.,:/+-]+")
_WORD = r"[^\W\d_]+(?:(?:19|20)\d\d|\d{0,3})|(?:19|20)\d\d|\d{1,3}"
_NAME = re.compile(rf"(?:{_WORD})(?:[\s_.:@/\\-]+(?:{_WORD}))*")
_ROOTED = re.compile(r"(?:~\w*|\.{0,2}|[A-Za-z]:)[/\\]")
_RANDOM = re.compile(r"(?=\S*\d)(?=\S*[a-z])(?=\S*[A-Z])[A-Za-z0-9+=]{16,}")
_VARIABLE = re.compile(r"\$(?:\{|[A-Z_][A-Z0-9_]*$)")
_BETWEEN = re.compile(r"[/\\\s,:;=]+")


def is_number(text: str) -> bool:
    """Return whether text is a number, a version, a date, a time, or several of them."""
    return _NUMBER.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Return whether text looks like a name or like words: ``project_1``, ``resnet18-cifar10``, ``a.b.Net``.

    Words have letters, then at most three digits or a year.
    """
    return _NAME.fullmatch(text) is not None


def is_path(text: str) -> bool:
    """Return whether text is a path, which need not exist on this machine.

    Keys in Base64 have slashes too: they begin with a long part of digits, small and capital letters.
    """
    if os.path.exists(text):
        return True
    parts = [part for part in re.split(r"[/\\]", text) if part]
    if not parts or _RANDOM.fullmatch(parts[0]):
        return False
    is_listed = re.search(r"[/\\]", text) is not None and all(map(is_name, parts))
    return is_listed or (len(parts) > 1 and _ROOTED.match(text) is not None)


def may_be_secret(text: str) -> bool:
    """Return whether text is long enough for a secret, and no number, path, or few words without a digit."""
    if len(text) < SHORTEST or _VARIABLE.match(text) or is_number(text) or is_path(text):
        return False
    return len(text) >= LONG or not is_name(text) or any(map(str.isdigit, text))


def words_in(values: Any) -> Iterator[str]:
    """Yield the keys and texts of nested values, whole and their parts: of a path, its folders."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from words_in(str(key))
            yield from words_in(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from words_in(value)
    elif isinstance(values, str):
        yield values
        yield from _BETWEEN.split(values)
