"""Text files that are either whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

from dropsearch.drafts import whole


def write_whole(path: Path, text: str) -> None:
    """Write `text` as UTF-8, so that even a crash of the machine leaves the old file or the new one."""
    with whole(path) as draft, draft.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
