"""Sanitizing of text from users, files and servers: no control characters, one line, no passwords."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

MASK = "***"
"""Replacement for a password or a token."""
LONGEST = 1000
"""Maximum length of an error message; longer ones are shortened in the middle."""

_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories of control characters, format characters (marks of direction), surrogates and line separators."""
_SECRET = (
    r"(?:db|ftp|http|my|pg|redis|smtp|user)?(?:password|passwd|pwd)|passphrase|passcode|secret|credentials?|"
    r"authorization|(?:(?:basic|http|proxy)[_-]?)?auth|(?:set-)?cookie|connection[_-]?string|dsn|webhook[_-]?url|"
    r"shared[_-]?access[_-]?signature|(?:db|ftp|http|pg|redis|smtp|user)[_-]?pass|"
    r"(?:access|account|api|encryption|functions|license|private|secret|signing|ssh|subscription)[_-]?key|"
    r"(?:access|account|api|auth|bearer|bot|deploy|git(?:hub|lab)|hf|jwt|private|refresh|secret|security|session|slack)"
    r"[_-]?token"
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
_OPTION = re.compile(rf"((?<!\S)(?:--(?:{_NAME})\s|(?:-u|--user)[\s=][^\s:]+:))\S+", re.IGNORECASE)
_BEARER = re.compile(r"(\bBearer\s)[\w.~+/=-]{16,}")
_TOKEN = re.compile(
    r"\b(?:(?<=hooks\.slack\.com/services/)\S+|hf_[A-Za-z0-9]{20,}|gh[opsru]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|sk-(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{20,}|"
    r"xox[abprs]-[\w-]{10,}|dapi[0-9a-f]{32}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
"""Tokens of well-known services, which their format tells."""
_known: dict[str, None] = {}
"""Passwords and tokens that this process was given, the longest first, which are masked wherever they stand."""
SHORTEST, LONG = 8, 16
"""Number of characters of a secret that is remembered, and of one that may be of letters alone."""


def is_secret_key(key: str) -> bool:
    """Return whether a key names a password or a token: ``model.api_key``, ``HF_TOKEN``."""
    return _KEY.fullmatch(key) is not None


def masked(text: str) -> str:
    """Return text with ``***`` in place of passwords and tokens.

    These are the password of a URL (and the user of an HTTP address, which may be a token), arguments such as
    ``?token=`` behind it, assignments to names such as ``API_KEY=``, tokens of well-known services, and the values of
    `remember_secrets`.
    """
    for known in _known:
        text = text.replace(known, MASK)
    whole = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None
    text = (_WHOLE_USERINFO if whole else _USERINFO).sub(rf"\1\2:{MASK}@", text)
    text = _USER_ALONE.sub(rf"\1{MASK}@", text)
    for named in (_QUERY, _ASSIGNED, _OPTION, _BEARER):
        text = named.sub(rf"\1{MASK}", text)
    return _TOKEN.sub(MASK, text)


def remember_secrets(values: Any, key: str = "") -> None:
    """Remember the passwords and tokens in nested values, for `masked`, except short ones and plain words."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            remember_secrets(value, key if is_secret_key(key) else str(name))
    elif isinstance(values, list | tuple):
        for value in values:
            remember_secrets(value, key)
    elif isinstance(values, str):
        found = filter(str.strip, [values] if is_secret_key(key) and "://" not in values else _secrets_in(values))
        fit = {each for part in found for each in (part, unquote(part), part.split()[-1]) if _can_be_told(each)}
        ordered = sorted({*_known, *fit}, key=lambda each: (-len(each), each))
        _known.clear()
        _known.update(dict.fromkeys(ordered))


def _secrets_in(text: str) -> list[str]:
    """Return the passwords and tokens in a text that their place or format tells."""
    urls = [match[3] for match in (_WHOLE_USERINFO.match(text),) if match]
    users = [match[2] for match in _USER_ALONE.finditer(text)]
    named = [match[0].removeprefix(match[1]) for each in (_QUERY, _ASSIGNED, _OPTION) for match in each.finditer(text)]
    return [*urls, *users, *(each.strip("\"'") for each in named)]


def _can_be_told(value: str) -> bool:
    """Return whether a secret is no plain word, number or path, which also mean something else."""
    if os.path.exists(value):  # such as the working folder, which shells name PWD
        return False
    return len(value) >= SHORTEST and not value.isdigit() and (len(value) >= LONG or not value.isalpha())


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
