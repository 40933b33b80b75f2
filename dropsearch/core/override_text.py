"""Values as text that Hydra and OmegaConf read back as the same values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_PLAIN_WORD = re.compile(r"(?!(?:true|false|null|nan|inf)$)[A-Za-z_][\w.\-/]*", re.ASCII | re.IGNORECASE)
_NOT_FINITE = {"NaN": "nan", "Infinity": "inf", "-Infinity": "-inf"}
_KEY_ESCAPED = re.compile(r"[\\()\[\]{}:=, \t]")
_KEY = re.compile(r"[\w/\-+.$%*@?|\\()\[\]{}:=,]+(?:[ \t]+[\w/\-+.$%*@?|\\()\[\]{}:=,]+)*", re.ASCII)


def leaves(values: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings by dotted keys; an empty mapping is a value, lists are not entered."""
    if isinstance(values, Mapping) and values:
        for name, inner in values.items():
            yield from leaves(inner, f"{key}.{name}" if key else str(name))
    elif key:
        yield key, values


def override(key: str, value: Any) -> str:
    """Return ``KEY=VALUE`` as one word of a command line, for which a configuration gets exactly this value.

    Raises:
        ValueError: A mapping has a key that Hydra's grammar cannot write, such as one with quotes.
    """
    return f"{key}={written(literal(value))}"


def literal(value: Any) -> Any:
    """Return a value in whose texts OmegaConf finds no interpolation: ``${a}`` is written as it escapes it."""
    if isinstance(value, Mapping):
        return {key: literal(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [literal(item) for item in value]
    if not isinstance(value, str) or "${" not in value:
        return value
    return re.sub(r"(\\*)\$\{", lambda match: match[1] * 2 + "\\${", value)


def written(value: Any) -> str:
    """Return a value in the grammar of Hydra's overrides; raise ValueError for a key that it cannot write."""
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{_key(key)}:{written(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(written(item) for item in value)}]"
    if not isinstance(value, str):
        text = json.dumps(value)
        return _NOT_FINITE.get(text, text)
    if _PLAIN_WORD.fullmatch(value):
        return value
    # In Hydra's quoted strings only backslashes in front of a quote need escaping.
    escaped = re.sub(r"(\\*)'", lambda match: match[1] * 2 + "\\'", value)
    escaped = re.sub(r"\\+\Z", lambda match: match[0] * 2, escaped)
    return f"'{escaped}'"


def _key(key: Any) -> str:
    if not isinstance(key, str):
        return written(key)
    if not _KEY.fullmatch(key):
        raise ValueError(f"Hydra's grammar has no text for the key {key!r}")
    return _KEY_ESCAPED.sub(r"\\\g<0>", key)
