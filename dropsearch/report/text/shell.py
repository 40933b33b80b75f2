"""Commands of a shell on lines of limited width, to be copied as they are."""

from __future__ import annotations

import re
import shlex

_WORD = re.compile(r"""(?:[^\s'"\\]|\\.|'[^']*'|"(?:[^"\\]|\\.)*")+""", re.DOTALL)
_JOINED = "\\"
"""At the end of a line: the next one belongs to it."""


def folded(command: str, width: int, indent: str = "  ") -> str:
    """Return a command as lines of at most `width` characters, which a POSIX shell reads as the command.

    Lines break between words. A longer word, such as code in quotes, is written in several pairs of quotes; its lines
    begin at the margin, where no space parts it. An address, and a word that the shell expands, stay whole.

    Example:
        >>> print(folded("python -m dropsearch model=cnn data=mnist1d", 30))
          python -m dropsearch \\
            model=cnn data=mnist1d
    """
    words = _WORD.findall(command)
    if len(indent) + len(command) <= width or len(words) < 2:
        return indent + command
    lines, last = [], len(words) - 1
    line = indent + words[0]
    for number, word in enumerate(words[1:], 1):
        room = width - (0 if number == last else len(_JOINED) + 1)
        if len(line) + 1 + len(word) <= room:
            line += f" {word}"
        elif len(f"{indent}  {word}") <= room or not _can_be_split(word):
            lines.append(f"{line} {_JOINED}")
            line = f"{indent}  {word}"
        else:
            lines.append(f"{line} {_JOINED}")
            *heads, line = _parts(shlex.split(word)[0], width - 2)
            lines += [head + _JOINED for head in heads]
    return "\n".join([*lines, line])


def _can_be_split(word: str) -> bool:
    return "://" not in word and shlex.join(shlex.split(word)) == word


def _parts(value: str, width: int) -> list[str]:
    """Return a word as quoted parts of at most `width` characters, broken behind statements, commas or spaces."""
    found = []
    while value:
        end = len(value)
        while len(shlex.quote(value[:end])) > width:
            end -= 1
        if end < len(value):
            statements = value.rfind("; ", 0, end) + 2
            ends = [value.rfind(mark, 0, end) + len(mark) for mark in (", ", " ", ",", "/")]
            end = statements if statements > 1 else next((each for each in ends if each > end // 2), end)
        found.append(shlex.quote(value[:end]))
        value = value[end:]
    return found
