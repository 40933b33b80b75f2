"""Sanitizing of text from users, files and servers: no control characters, one line, no passwords."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

MASK = "***"
"""Replacement for a password or a token."""
LONGEST = 1000
"""Maximum length of an error message; longer ones are shortened in the middle."""

_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of control characters, format characters (marks of direction), surrogates and line separators."""
_SECRET = (
    r"password|passwd|passphrase|pwd|secret|credentials?|api[_-]?key|(?:access|private|secret)[_-]?key|"
    r"(?:access|account|api|auth|bearer|hf|refresh|secret|security|session)[_-]?token"
)
_NAME = rf"(?:[\w.-]*[_.-])?(?:{_SECRET})|(?:[\w.-]*\.)?token|(?-i:[A-Z0-9_]*_TOKEN)"
_KEY = re.compile(_NAME, re.IGNORECASE)
_USERINFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^\s/:@]*):(?!\d{1,5}/)(\S*)@")
_WHOLE_USERINFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^/:@]*):(?!\d{1,5}/)(.*)@", re.DOTALL)
_USER_ALONE = re.compile(r"(https?://)([^\s/:@]+)@")
_QUERY = re.compile(rf"([?&;](?:{_NAME}|key|sig|signature|sslpassword|odbc_connect)=)[^&;\s\"']+", re.IGNORECASE)
_ASSIGNED = re.compile(
    rf"((?<![\w.-])(?:{_NAME})[\"']?\s?[:=]\s?)(?![\"']?\$\{{)(\"[^\"]*\"|'[^']*'|[^\s,;&}}\])]+)", re.IGNORECASE
)


def is_secret_key(key: str) -> bool:
    """Return whether a key names a password or a token: ``model.api_key``, ``HF_TOKEN``."""
    return _KEY.fullmatch(key) is not None


def masked(text: str) -> str:
    """Return text with ``***`` in place of passwords and tokens.

    These are the password of a URL (and the user of an HTTP address, which may be a token), arguments such as
    ``?token=`` behind it, and assignments to names such as ``API_KEY=``.
    """
    whole = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None
    text = (_WHOLE_USERINFO if whole else _USERINFO).sub(rf"\1\2:{MASK}@", text)
    text = _USER_ALONE.sub(rf"\1{MASK}@", text)
    text = _QUERY.sub(rf"\1{MASK}", text)
    return _ASSIGNED.sub(rf"\1{MASK}", text)


def masked_values(value: Any, key: str = "") -> Any:
    """Return nested mappings and lists with passwords and tokens masked, recognized by key or by format.

    All that stands under the key of a secret is one.
    """
    if isinstance(value, Mapping):
        return {name: masked_values(item, key if is_secret_key(key) else str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(masked_values(item, key) for item in value)
    if not isinstance(value, str) or not value:
        return value
    return MASK if is_secret_key(key) else masked(value)


def printable(text: str, keep: str = "") -> str:
    r"""Return text with control characters, direction marks and surrogates escaped, as ``\x1b``.

    Characters in `keep`, such as line feeds, are not escaped.
    """
    if text.translate(dict.fromkeys(map(ord, keep))).isprintable():
        return text
    return "".join(
        character.encode("unicode_escape", "surrogatepass").decode()
        if unicodedata.category(character) in _ESCAPED and character not in keep
        else character
        for character in text
    )


def has_control_characters(text: str) -> bool:
    """Return whether text has characters that `printable` escapes, not counting undecodable bytes of paths."""
    return any(unicodedata.category(character) in _ESCAPED - {"Cs"} for character in text)


def one_line(text: str, longest: int = LONGEST) -> str:
    """Return text for a message: one line, masked, printable, and shortened in the middle if it is long."""
    line = printable(masked(text.strip()))
    if len(line) <= longest:
        return line
    half = (longest - 3) // 2
    return f"{line[:half]} … {line[-half:]}"
