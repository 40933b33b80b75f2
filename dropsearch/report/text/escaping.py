"""Words of the user's in Markdown and HTML, where they must not become markup."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dropsearch.core.printable import printable

# What begins emphasis, code, links, HTML or an entity; an underscore within a word does none of it on GitHub.
_MARKUP = re.compile(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])|<(?=[A-Za-z/!?])|&(?=[#A-Za-z])")
_CODE = re.compile("`([^`]*)`")
_ILLEGAL = re.compile("[\\ufffe\\uffff]")


def drawable(text: str) -> str:
    """`text` with a mark in place of what neither XML nor HTML allows, and escapes for control characters."""
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", printable(text, keep="\n\t"))


def escaped(text: str) -> str:
    """`text` on one line, showing every character as it is."""
    return _MARKUP.sub(r"\\\g<0>", printable(" ".join(text.split())))


def spans(text: str) -> Iterator[tuple[str, bool]]:
    """The parts of a sentence, and whether each stood between backticks."""
    for place, part in enumerate(_CODE.split(text)):
        if part:
            yield part, place % 2 == 1


def prose(text: str) -> str:
    """A sentence in which only `code` between backticks is markup."""
    return "".join(code(part) if is_code else _between(part) for part, is_code in spans(text))


def _between(part: str) -> str:
    """Escaped, with the spaces that set it off from code."""
    before, after = part[:1].isspace(), part[-1:].isspace()
    return f"{' ' if before else ''}{escaped(part)}{' ' if after and part.strip() else ''}"


def code(text: str) -> str:
    """`text` as code within a line, whatever backticks it has."""
    line = printable(" ".join(text.split())) or " "
    fence = _fence(line, 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def block(text: str) -> str:
    """`text` as a block of code, whatever backticks it has."""
    text = printable(text, keep="\n")
    fence = _fence(text, 3)
    return f"{fence}\n{text}\n{fence}"


def _fence(text: str, least: int) -> str:
    longest = max(map(len, re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)
