"""Sanitizing of text from users, files and servers: no control characters, one line, no passwords."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote

from dropsearch.core.ordinary_text import SHORTEST, is_name, is_number, is_path, may_be_secret, words_in

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
_NAME = (
    rf"(?:[\w.-]*[_.-])?(?:{_SECRET})|(?:[\w.-]*\.)?token|"
    r"(?-i:(?!(?:\w+_)?(?:BOS|CLS|END|EOS|EXTRA|IMAGE|MASK|MAX|MIN|NEW|NEXT|PAD|SEP|START|STOP|UNK)_TOKEN)[A-Z0-9_]*_TOKEN)"
)
"""Names of secrets, as whole words; of tokens, not those of a vocabulary."""
_KEY = re.compile(_NAME, re.IGNORECASE)
_SCHEME = r"(?<![A-Za-z0-9+.-])((?!https?:)[A-Za-z][A-Za-z0-9+.-]*://|https?://(?![^\s/:@]*:\d{1,5}/))"
"""The start of an address; not of an HTTP address with a port, whose path may contain an @."""
_USERINFO = re.compile(rf"{_SCHEME}([^\s/:@]*):(\S*)@", re.IGNORECASE)
_WHOLE_USERINFO = re.compile(rf"{_SCHEME}([^/:@]*):(.*)@", re.DOTALL | re.IGNORECASE)
_USER_ALONE = re.compile(r"(https?://)(?:(?=[^\s/:@]*\d)[^\s/:@]+|[^\s/:@]{20,})@")
"""A user that may be a token, since it has a digit or is long."""
_QUERY = re.compile(
    rf"([?&;](?:{_NAME}|key|sig|(?:[\w-]*-)?signature|sslpassword|odbc_connect)=)[^&;\s\"']+", re.IGNORECASE
)
_TOKENS = r"(?:[\w.-]*\.)?token"
"""A key of a token, or of a number of them."""
_ASSIGNED = re.compile(
    rf"((?<![\w.-])(?!(?-i:PWD)[\"']?\s?[:=]\s?[\"']?[~/])(?!{_TOKENS}[\"']?\s?[:=]\s?\d{{1,6}}(?![\w.-]))(?:{_NAME})[\"']?\s?[:=]\s?)(?![\"']?\$\{{)"
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
_SCHEMES = re.compile(r"^(?:Basic|Bearer|Token)\s+(\S+)$", re.IGNORECASE)
"""Authorization whose last word alone is the secret."""
_FOLDERS = frozenset({"PWD", "OLDPWD"})
"""Variables of shells for folders; in the address of a database, ``PWD`` is a password."""
LEAST_NUMBER = 1000
"""Numbers from here on may be a password."""
_known: dict[str, re.Pattern[str]] = {}
"""What finds the passwords and tokens of this run in text, the longest first."""


def is_secret_key(key: str) -> bool:
    """Return whether a key names a password or a token: ``model.api_key``, ``HF_TOKEN``."""
    return _KEY.fullmatch(key) is not None


def masked(text: str) -> str:
    """Return text with ``***`` in place of passwords and tokens: those of `masked_by_form` and `remember_secrets`."""
    for known in _known.values():
        text = known.sub(MASK, text)
    return masked_by_form(text)


def masked_if_whole(text: str) -> str:
    """Return ``***`` if the text is a remembered secret as a whole, otherwise what `masked_by_form` returns."""
    return MASK if text in _known else masked_by_form(text)


def masked_by_form(text: str) -> str:
    """Return text with ``***`` in place of passwords and tokens that their place or format tells, in any environment.

    These are the password of a URL (and the user of an HTTP address, which may be a token), arguments such as
    ``?token=`` behind it, assignments to names such as ``API_KEY=``, and tokens of well-known services.
    """
    whole = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None
    text = (_WHOLE_USERINFO if whole else _USERINFO).sub(rf"\1\2:{MASK}@", text)
    text = _USER_ALONE.sub(rf"\1{MASK}@", text)
    for named in (_QUERY, _ASSIGNED, _OPTION, _BEARER):
        text = named.sub(rf"\1{MASK}", text)
    return _TOKEN.sub(MASK, text)


def remember_secrets(values: Any, environment: Mapping[str, str] = MappingProxyType({})) -> None:
    """Remember the passwords and tokens of a run for `masked`, and forget those of an earlier run.

    Paths, words, and numbers of less than eight digits are not remembered, nor are text that is a number and names that
    the configuration also uses for something else.
    Other secrets that look like a name are masked as whole words only, and not in paths.
    """
    ordinary = {*words_in(masked_values(values, text=masked_by_form))}
    given = {*_given_secrets(values), *_given_secrets({k: v for k, v in environment.items() if k not in _FOLDERS})}
    found = {each for text in given for each in (text, unquote(text), *_SCHEMES.findall(text)) if may_be_secret(each)}

    def add_number(key: str, value: Any) -> None:
        if type(value) is int and abs(value) >= 10 ** (SHORTEST - 1) and holds_secret(key, value):
            found.add(str(value))

    changed_leaves(values, "", add_number)
    ordered = sorted((each for each in found if not (is_name(each) and each in ordinary)), key=lambda e: (-len(e), e))
    _known.clear()
    _known.update({each: _finder(each) for each in ordered})


def _finder(secret: str) -> re.Pattern[str]:
    text = re.escape(secret)
    return re.compile(rf"(?<![\w/\\.-]){text}(?![\w/\\-]|\.\w)" if is_name(secret) or is_number(secret) else text)


def _given_secrets(values: Any, key: str = "") -> Iterator[str]:
    """Yield the passwords and tokens in nested values that their key, place or format tells."""
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from _given_secrets(value, key if is_secret_key(key) else str(name))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _given_secrets(value, key)
    elif isinstance(values, str):
        is_whole = is_secret_key(key) and "://" not in values
        yield from [values.strip()] if is_whole else _secrets_in(values)


def _secrets_in(text: str) -> Iterator[str]:
    """Yield the passwords and tokens in a text that their place tells."""
    if address := _WHOLE_USERINFO.match(text):
        yield address[3]
    for each in (_QUERY, _ASSIGNED, _OPTION):
        for match in each.finditer(text):
            yield match[0].removeprefix(match[1]).strip("\"'")


def holds_secret(key: str, value: Any) -> bool:
    """Return whether a value under a key is a password or a token, since the key names one.

    Under `token` numbers are none: they count tokens.
    """
    if not is_secret_key(key):
        return False
    if isinstance(value, str):
        return bool(value) and not (key.rpartition(".")[2] in _FOLDERS and is_path(value))
    return type(value) is int and abs(value) >= LEAST_NUMBER and not _is_token_key(key)


def masked_values(value: Any, key: str = "", text: Callable[[str], str] = masked) -> Any:
    """Return nested mappings and lists with passwords and tokens masked.

    All that stands under the key of a secret is one; `text` masks other text.
    """

    def hidden(key: str, value: Any) -> Any:
        if holds_secret(key, value):
            return MASK
        return text(value) if isinstance(value, str) else value

    return changed_leaves(value, key, hidden)


def comparable_values(value: Any, key: str = "") -> Any:
    """Return nested mappings and lists for a comparison with other values, with passwords and tokens masked by form.

    A secret may be renewed, so what is masked is equal. What is too short or too plain for a secret may be a setting
    (``model.token=cls``): it differs from others by one byte of its digest. That one byte is the same wherever it is
    written, and one guess in 256 has it, so that no list of guesses finds the value.
    """

    def marked(key: str, value: Any) -> Any:
        hidden = masked_values(value, key, masked_by_form)
        parts = [] if hidden == value else [*_given_secrets(str(value), key)]
        if not parts or any(may_be_secret(part) and _has_form(key, part) for part in parts):
            return hidden
        return f"{hidden}{hashlib.blake2b(str(value).encode(), digest_size=1).hexdigest()}"

    return changed_leaves(value, key, marked)


def changed_leaves(value: Any, key: str, change: Callable[[str, Any], Any]) -> Any:
    """Return nested mappings and lists with each value changed, given its key or that of a secret above it."""
    if isinstance(value, Mapping):
        above = key if is_secret_key(key) else ""
        return {name: changed_leaves(item, above or str(name), change) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(changed_leaves(item, key, change) for item in value)
    return change(key, value)


def _is_token_key(key: str) -> bool:
    return key.rpartition(".")[2].lower() == "token"


def _has_form(key: str, text: str) -> bool:
    """Return whether text has the characters of a token, or its key allows others."""
    return not _is_token_key(key) or re.fullmatch(r"[\w.~+/=:-]+", text) is not None


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


def tell(message: str) -> None:
    """Print a message as one printable line on stderr, broken between words where a terminal is narrower."""
    print(for_terminal(printable(message), sys.stderr), file=sys.stderr, flush=True)


def for_terminal(text: str, stream: Any) -> str:
    """Return a line, broken between words if the stream is a terminal that is narrower than the line."""
    with suppress(OSError, ValueError):
        if stream.isatty():
            width = os.get_terminal_size(stream.fileno()).columns or len(text)
            return "\n".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False))
    return text
