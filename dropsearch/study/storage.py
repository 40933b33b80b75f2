"""Opening and checking the storage of studies: a journal file, or any Optuna storage."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy import create_engine  # comes with optuna
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from dropsearch._compat.database_urls import missing_driver, sqlite_file
from dropsearch._compat.optuna_journal import first_bad_line
from dropsearch.core.errors import InputError, first_cause
from dropsearch.core.printable import masked
from dropsearch.study.journal import open_journal
from dropsearch.study.reconnect import retried

LIBPQ = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""Timeouts of libpq for unresponsive servers: seconds, a count, and milliseconds."""


def open_storage(url: str | BaseStorage | None, journal: Path) -> BaseStorage:
    """Open the storage of a study; create it if necessary.

    Args:
        url: An Optuna storage URL or the path of a journal file; None for `journal`. A storage is returned unchanged.

    Raises:
        InputError: The storage cannot be opened, or contains something else.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if isinstance(url, BaseStorage):
        return url
    check_storage(url, journal)
    if url is None or "://" not in url:
        return _open_journal(Path(url) if url else journal)
    try:
        return retried("the storage", lambda: _open_database(url))
    except Exception as error:
        raise _no_database(url, error) from error


def _open_database(url: str) -> BaseStorage:
    options = engine_options(url)
    url = url.replace("{", "{{").replace("}", "}}")  # Optuna treats the URL as a template
    for pause in PAUSES:
        # If several processes create the tables at once, all but one fail because the tables exist.
        try:
            return RDBStorage(url, engine_kwargs=options)
        except (OperationalError, IntegrityError, ProgrammingError) as error:
            if not any(words in str(error).lower() for words in MADE_BY_ANOTHER):
                raise
        time.sleep(pause)
    return RDBStorage(url, engine_kwargs=options)


PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)
"""Seconds between attempts to open a database while other processes create its tables."""
MADE_BY_ANOTHER = ("already exists", "duplicate key", "unique constraint", "is locked")
"""What databases say of tables, types and rows that another process has just created."""


def engine_options(url: str) -> dict[str, Any]:
    """Return the arguments of SQLAlchemy's engine for a database.

    SQLite waits for other writers. Connections to a server are tested before use, since the server may have restarted;
    a dropped connection is detected within half a minute.
    """
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": 60}}
    given = make_url(url)
    known = given.get_backend_name() == "postgresql" and given.get_driver_name() in ("psycopg", "psycopg2")
    waits = {name: value for name, value in LIBPQ.items() if name not in given.query} if known else {}
    return {"pool_pre_ping": True, "connect_args": waits}


def storage_exists(url: str | BaseStorage | None, journal: Path) -> bool:
    """Return whether there may be studies to continue; a server may have some, a missing file has none."""
    if isinstance(url, BaseStorage):
        return True
    file = _file_of(url, journal)
    return file is None or file.exists()


def check_storage(url: str | BaseStorage | None, journal: Path) -> None:
    """Check that a storage can be opened or created, without writing anything."""
    if isinstance(url, BaseStorage):
        return
    file = _file_of(url, journal)
    if file is not None:
        _check_file(url, file)
    if file is None:
        _check_server(str(url))
    elif url is not None and "://" in url:
        _check_database(url, file)
    elif file.exists():
        try:
            with file.open("rb") as stream:
                _check_first_line(stream.readline())
        except (OSError, ValueError) as error:
            raise _no_journal(file, error) from error
    elif url is not None:
        _check_folder(url, file.absolute().parent)


def _check_file(url: str | None, file: Path) -> None:
    """Check that an existing path is a file; reading or writing a device or a pipe might never end."""
    try:
        is_other = file.exists() and not file.is_file()
    except OSError as error:  # such as a name that is too long
        raise InputError(f"study.storage cannot be used ({error.strerror}): name another file") from error
    if is_other and not file.is_dir():
        raise InputError(f'study.storage must be a file, got "{url or file}", which is a device or a pipe: name a file')


def _file_of(url: str | None, journal: Path) -> Path | None:
    """Return the file of a storage, or None for a server."""
    if url is None or "://" not in url:
        return Path(url) if url else journal
    if not url.startswith("sqlite"):
        return None
    try:
        return sqlite_file(url)
    except ValueError as error:
        raise _no_database(url, error) from error


def _check_server(url: str) -> None:
    try:
        engine = create_engine(url, **engine_options(url))
        retried("the storage", lambda: engine.connect().close())
        engine.dispose()
    except Exception as error:  # each driver has its own exceptions
        raise _no_database(url, error) from error


def _check_database(url: str, file: Path) -> None:
    if not file.exists():
        _check_folder(url, file.absolute().parent, must_exist=True)
        return
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    except sqlite3.Error as error:
        if "locked" in str(error):  # by another writer, for which opening waits
            return
        raise _no_database(url, error) from error
    if not os.access(file, os.W_OK) or not os.access(file.absolute().parent, os.W_OK):
        raise _no_database(url, ValueError("it can be read, but not written"))
    if tables and "studies" not in tables:
        raise _no_database(url, ValueError(f"it contains other tables, such as {sorted(tables)[0]}"))


def _check_folder(url: str, folder: Path, must_exist: bool = False) -> None:
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    usable = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    if not usable or (must_exist and nearest != folder):
        raise InputError(
            f'study.storage must lie in a folder that can be written, got "{masked(url)}": make {folder} first'
        )


def _no_database(url: str, error: Exception) -> InputError:
    if driver := missing_driver(error):
        return InputError(f'study.storage must be a database that can be opened, got "{masked(url)}", but {driver}')
    return InputError(
        f'study.storage must be an Optuna storage that can be opened, got "{masked(url)}" ({first_cause(error)}): '
        "set another URL, or leave study.storage out for a journal file in output_dir"
    )


def _no_journal(path: Path, error: Exception) -> InputError:
    reason = _unreadable(path, error)
    return InputError(
        f'study.storage must be a journal file that Optuna wrote, got "{path}" ({reason}): '
        "name another file, or move this one away"
    )


def _unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        # The lock file may be unreadable instead.
        other = error.filename is not None and Path(error.filename) != path
        return f"{error.filename}: {error.strerror}" if other else str(error.strerror or error)
    number = first_bad_line(path) if path.is_file() else 0
    return f"line {number} is not a journal entry" if number else str(error)


def _open_journal(path: Path) -> BaseStorage:
    lock = path.with_name(f"{path.name}.lock")
    is_first = not lock.exists()
    try:
        return open_journal(path)
    except Exception as error:  # entries of another program may raise anything
        if is_first:
            with suppress(OSError):
                lock.unlink()
        raise _no_journal(path, error) from error


def _check_first_line(line: bytes) -> None:
    if line[:1] in (b"", b"{") and not line.endswith(b"\n"):
        return  # nothing is there, or an entry that was cut off
    with suppress(ValueError):
        entry = json.loads(line)
        if isinstance(entry, dict) and "op_code" in entry:
            return
    raise ValueError("it does not start with a journal entry")
