"""Escaping of user text in Markdown and HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dropsearch.core.printable import printable

# Characters that start emphasis, code, links, HTML or an entity; underscores within words are safe on GitHub.
_MARKUP = re.compile(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])|<(?=[A-Za-z/!?])|&(?=[#A-Za-z])")
_CODE = re.compile("`([^`]*)`")
_ILLEGAL = re.compile("[\\ufffe\\uffff]")


def drawable(text: str) -> str:
    """Return `text` with invalid XML and HTML characters replaced and control characters escaped."""
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", printable(text, keep="\n\t"))


def escaped(text: str) -> str:
    """Return `text` on one line with markup escaped."""
    return _MARKUP.sub(r"\\\g<0>", printable(" ".join(text.split())))


def spans(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a sentence, and whether each was between backticks."""
    for place, part in enumerate(_CODE.split(text)):
        if part:
            yield part, place % 2 == 1


def prose(text: str) -> str:
    """Return a sentence in which only `code` between backticks is markup."""
    return "".join(code(part) if is_code else _between(part) for part, is_code in spans(text))


def _between(part: str) -> str:
    """Return an escaped part with its spaces next to code."""
    before, after = part[:1].isspace(), part[-1:].isspace()
    return f"{' ' if before else ''}{escaped(part)}{' ' if after and part.strip() else ''}"


def code(text: str) -> str:
    """Return `text` as inline code, whatever backticks it contains."""
    line = printable(" ".join(text.split())) or " "
    fence = _fence(line, 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def block(text: str) -> str:
    """Return `text` as a code block, whatever backticks it contains."""
    text = printable(text, keep="\n")
    fence = _fence(text, 3)
    return f"{fence}\n{text}\n{fence}"


def _fence(text: str, least: int) -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)
