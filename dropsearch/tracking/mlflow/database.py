"""Atomic creation of MLflow's SQLite file."""

from __future__ import annotations

import os
from pathlib import Path

from dropsearch._compat.database_urls import sqlite_url
from dropsearch.core.atomic_io import temporary_path
from dropsearch.tracking.mlflow.address import Address


def make_database(address: Address) -> None:
    """Create the SQLite file of an address with MLflow's tables, unless it exists or is no SQLite file.

    MLflow creates its tables in dozens of steps, and rejects the file of a process that was killed in between. The
    tables are therefore created in a temporary file, which is renamed. If several processes do so, the first one wins.
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
