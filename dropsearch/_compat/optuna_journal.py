"""Which line of a journal Optuna cannot read, found by replaying the lines one by one."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path


def first_bad_line(journal: Path) -> int:
    """Return the number of the first line that is no entry, counted from 1; 0 where each is one."""
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
            except Exception:  # an entry without its fields makes Optuna raise anything
                return number
    return 0
