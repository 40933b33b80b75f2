"""MLflow's SQLite file: made whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from dropsearch._compat.database_urls import sqlite_url
from dropsearch.core.atomic_io import temporary_path
from dropsearch.tracking.mlflow.address import Address


def make_database(address: Address) -> None:
    """Make the SQLite file of an address, with MLflow's tables, where there is none; do nothing elsewhere.

    MLflow makes its tables in dozens of steps, and a process that is killed between two of them leaves a file
    that it refuses for ever after. So they are made in a temporary, which then takes the file's name at once;
    of several processes that do so the first one's stays.
    """
    if not address.is_yet_to_be_made:
        return
    with temporary_path(address.database) as temporary:
        _make_tables(temporary, address)
        _publish(temporary, address.database)


def _make_tables(temporary: Path, address: Address) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(sqlite_url(temporary), address.artifacts).engine.dispose()


def _publish(temporary: Path, database: Path) -> None:
    try:
        os.link(temporary, database)
    except FileExistsError:
        return
    except OSError:  # a file system without links
        if not database.exists():
            temporary.rename(database)
