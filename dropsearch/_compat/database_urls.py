"""Database URLs: building and parsing them as SQLAlchemy does.

SQLAlchemy decodes ``%3F`` in a path from version 2.1 on. MLflow creates the folder of a ``sqlite:///`` URL without
decoding it. URLs are therefore built here and parsed again as a check.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import URL, make_url  # comes with optuna and mlflow
from sqlalchemy.exc import ArgumentError

PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433}
DRIVERS = {"psycopg": '"dropsearch[postgres]"', "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
"""Argument of `pip install` for drivers whose package and module names differ."""
_QUOTED = frozenset("%?#")
"""Characters that must be quoted in a URL."""


def sqlite_url(path: Path) -> str:
    """Return the URL of an SQLite file; raise ValueError if this version of SQLAlchemy cannot express the path."""
    plain = f"sqlite:///{path}"
    if not _QUOTED & set(str(path)):
        return plain
    # The driver name keeps MLflow from creating a folder with the quoted name.
    quoted = URL.create("sqlite+pysqlite", database=str(path)).render_as_string(hide_password=False)
    if make_url(quoted).database != str(path):
        raise ValueError("a path with %, ? or # needs SQLAlchemy 2.1 or newer")
    return quoted


def sqlite_file(url: str) -> Path:
    """Return the file that an SQLite URL refers to; raise ValueError if it is none or has a stray question mark."""
    try:
        read = make_url(url)
    except ArgumentError as error:
        raise ValueError("it is not a database URL") from error
    if not read.database or read.database == ":memory:":
        raise ValueError("an in-memory database is lost when the process ends: use a file, sqlite:///study.db")
    if read.host or read.username:
        raise ValueError("a file has no host: write three slashes and a relative path, or four and an absolute one")
    if read.database.startswith("file:"):
        raise ValueError("use the file's path instead of a file: URI")
    query = url.partition("?")[2]
    if query and not all("=" in part for part in query.split("&")):
        raise ValueError("a question mark in a path is written %3F")
    return Path(read.database)


def missing_driver(error: BaseException | None) -> str:
    """Return a message that names a missing database driver and its installation; empty for any other error."""
    while error is not None:
        if isinstance(error, ImportError):
            # psycopg names no module if PostgreSQL's client library is missing.
            name = (error.name or "psycopg" * ("pq wrapper" in str(error))).partition(".")[0]
            if name:
                return f"its driver {name} is not installed: pip install {DRIVERS.get(name, name)}"
        error = error.__cause__ or error.__context__
    return ""


def is_same_database(one: str, other: str) -> bool:
    """Return whether two URLs refer to the same database, ignoring drivers, users and options."""
    try:
        return _place(one) == _place(other)
    except ArgumentError:
        return False


def _place(url: str) -> tuple[object, ...]:
    read = make_url(url)
    kind = read.get_backend_name()
    if kind == "sqlite":
        return kind, Path(read.database or "").resolve()
    host = "localhost" if read.host in (None, "127.0.0.1", "::1") else read.host
    return kind, host, read.port or PORTS.get(kind), read.database or read.username
