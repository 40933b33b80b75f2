"""Fingerprints: the settings that must not change when a study continues, as they are stored and compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dropsearch.core.printable import MASK, masked

CODE = "code"
"""Key of a fingerprint with digests of user code by name."""


def plain(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fingerprint after a JSON round trip."""
    return json.loads(json.dumps(dict(fingerprint)))


def without_secrets(value: Any) -> Any:
    """Return a fingerprint as it is stored, without the passwords and tokens that this run remembers."""
    if isinstance(value, dict):
        return {key: without_secrets(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_secrets(each) for each in value]
    return masked(value) if isinstance(value, str) else value


def same(one: Any, other: Any) -> bool:
    """Return whether values are equal, apart from what is masked in one of them."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, str) and isinstance(other, str) and MASK in one + other:
        return _fits(one.split(MASK), other) or _fits(other.split(MASK), one)
    return one == other


def _fits(pieces: Sequence[str], text: str) -> bool:
    """Return whether text consists of the pieces, with anything between them."""
    first, *inner = pieces
    if not inner:
        return text == first
    if not text.startswith(first) or not text[len(first) :].endswith(inner[-1]):
        return False
    at, end = len(first), len(text) - len(inner[-1])
    for piece in inner[:-1]:
        at = text.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True


def changed_code(stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return the names of classes, functions and settings whose code differs.

    A name of one side alone is no change: what names it has changed, or has only now imported it.
    """
    before, now = stored.get(CODE, {}), given.get(CODE, {})
    return sorted(name for name in before.keys() & now.keys() if before[name] != now[name])
