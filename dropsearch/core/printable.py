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
    r"(?:db|ftp|http|my|pg|redis|smtp|user)?(?:password|passwd|pwd)|passphrase|secret|credentials?|authorization|"
    r"(?:db|ftp|http|pg|redis|smtp|user)[_-]?pass|(?:account|api)[_-]?key|(?:access|private|secret)[_-]?key|(?:access|account|api|auth|bearer|bot|deploy|git(?:hub|lab)|hf|jwt|"
    r"private|refresh|secret|security|session|slack)[_-]?token"
)
_NAME = rf"(?:[\w.-]*[_.-])?(?:{_SECRET})|(?:[\w.-]*\.)?token|(?-i:[A-Z0-9_]*_TOKEN)"
_KEY = re.compile(_NAME, re.IGNORECASE)
_SCHEME = r"(?<![A-Za-z0-9+.-])((?!https?:)[A-Za-z][A-Za-z0-9+.-]*://|https?://(?![^\s/:@]*:\d{1,5}/))"
"""The start of an address; not of an HTTP address with a port, whose path may contain an @."""
_USERINFO = re.compile(rf"{_SCHEME}([^\s/:@]*):(\S*)@", re.IGNORECASE)
_WHOLE_USERINFO = re.compile(rf"{_SCHEME}([^/:@]*):(.*)@", re.DOTALL | re.IGNORECASE)
_USER_ALONE = re.compile(r"(https?://)([^\s/:@]+)@")
_QUERY = re.compile(
    rf"([?&;](?:{_NAME}|key|sig|(?:[\w-]*-)?signature|sslpassword|odbc_connect)=)[^&;\s\"']+", re.IGNORECASE
)
_ASSIGNED = re.compile(
    rf"((?<![\w.-])(?:{_NAME})[\"']?\s?[:=]\s?)(?![\"']?\$\{{)"
    r"(\"[^\"]*\"|'[^']*'|\([^()]*\)|(?:(?:Basic|Bearer|Token)\s)?[^\s,;&}\])]+)",
    re.IGNORECASE,
)
_OPTION = re.compile(rf"((?<!\S)--(?:{_NAME})\s)\S+", re.IGNORECASE)
_BEARER = re.compile(r"(\bBearer\s)[\w.~+/=-]{16,}")
_TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|gh[opsru]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|sk-(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{20,}|"
    r"xox[abprs]-[\w-]{10,}|dapi[0-9a-f]{32}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
"""Tokens of well-known services, which their format tells."""


def is_secret_key(key: str) -> bool:
    """Return whether a key names a password or a token: ``model.api_key``, ``HF_TOKEN``."""
    return _KEY.fullmatch(key) is not None


def masked(text: str) -> str:
    """Return text with ``***`` in place of passwords and tokens.

    These are the password of a URL (and the user of an HTTP address, which may be a token), arguments such as
    ``?token=`` behind it, assignments to names such as ``API_KEY=``, and tokens of well-known services.
    """
    whole = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None
    text = (_WHOLE_USERINFO if whole else _USERINFO).sub(rf"\1\2:{MASK}@", text)
    text = _USER_ALONE.sub(rf"\1{MASK}@", text)
    for named in (_QUERY, _ASSIGNED, _OPTION, _BEARER):
        text = named.sub(rf"\1{MASK}", text)
    return _TOKEN.sub(MASK, text)


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
