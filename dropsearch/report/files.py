"""Text files that are either whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

from dropsearch.drafts import whole


def write_whole(path: Path, text: str) -> None:
    """Write `text` as UTF-8, so that even a crash of the machine leaves the old file or the new one.

    What no encoding has, such as the bytes of a path that are not UTF-8, is written as its number (``\\udc80``).
    """
    with whole(path) as draft, draft.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
