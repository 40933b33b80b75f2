"""MLflow's tables in a new SQLite file: its migrations take a second of processor time, and a copy of them none."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from dropsearch.core.atomic_io import temporary_path
from dropsearch.tracking.mlflow import address
from dropsearch.tracking.mlflow.address import Address

PLACE = "TESTS_MLFLOW_TABLES"
"""The environment variable that names the file with the tables, for all processes of a test session."""
_make_tables = address._make_tables


def copy_tables() -> None:
    """Let new databases of this process, and of those that it forks, begin with copied tables."""
    address._make_tables = _copied if PLACE in os.environ else _make_tables


def make_tables() -> None:
    """Let MLflow make the tables, as it does outside of tests."""
    address._make_tables = _make_tables


def _copied(temporary: Path, given: Address) -> None:
    made = Path(os.environ[PLACE])
    if not made.exists():
        with temporary_path(made) as part:
            _make_tables(part, given)
            part.replace(made)
    shutil.copyfile(made, temporary)
    with closing(sqlite3.connect(temporary)) as connection:
        change = "UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0"
        connection.execute(change, (f"{given.artifacts}/0",)).close()
        connection.commit()
