"""Search for corrupt lines in Optuna's journal by replaying it line by line."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path


def first_bad_line(journal: Path) -> int:
    """Return the number of the first invalid line, counted from 1, or 0 if all lines are valid."""
    try:
        replay = import_module("optuna.storages.journal._storage").JournalStorageReplayResult("reader-")
    except (ImportError, AttributeError):  # another version of Optuna
        replay = None
    with journal.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                assert isinstance(entry["op_code"], int)
                if replay is not None:
                    replay.apply_logs([entry])
            except Exception:  # Optuna raises various errors for an entry with missing fields
                return number
    return 0
