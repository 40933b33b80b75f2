"""Addresses of databases, and the files and servers that they mean, as SQLAlchemy reads and writes them.

SQLAlchemy 2.1 decodes ``%3F`` in a path, earlier versions do not; MLflow makes the folder that the text of a
``sqlite:///`` address names, without decoding it. So addresses are made here, and read back to check them.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import URL, make_url  # comes with optuna and mlflow
from sqlalchemy.exc import ArgumentError

PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433}
"""The ports of databases whose address names none."""
DRIVERS = {"psycopg": '"dropsearch[postgres]"', "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
"""What `pip install` takes for a driver whose package has another name than its module."""
_QUOTED = frozenset("%?#")
"""Characters that an address cannot hold as they are."""


def sqlite_url(path: Path) -> str:
    """Return the address of an SQLite file.

    Raises:
        ValueError: This version of SQLAlchemy has no address for the path.
    """
    plain = f"sqlite:///{path}"
    if not _QUOTED & set(str(path)):
        return plain
    # With the driver's name, or MLflow makes a folder of the quoted name.
    quoted = URL.create("sqlite+pysqlite", database=str(path)).render_as_string(hide_password=False)
    if make_url(quoted).database != str(path):
        raise ValueError("a path with %, ? or # needs SQLAlchemy 2.1 or newer")
    return quoted


def sqlite_file(url: str) -> Path:
    """Return the file that an SQLite address means.

    Raises:
        ValueError: It means none: memory, a URI of SQLite's own, or text behind a question mark that is lost.
    """
    try:
        read = make_url(url)
    except ArgumentError as error:
        raise ValueError("it is no address of a database") from error
    if not read.database or read.database == ":memory:":
        raise ValueError("memory is lost with the process: give a file, sqlite:///study.db")
    if read.host or read.username:
        raise ValueError("a file has no host: write three slashes and a relative path, or four and an absolute one")
    if read.database.startswith("file:"):
        raise ValueError("give the file's path, not a file: URI")
    query = url.partition("?")[2]
    if query and not all("=" in part for part in query.split("&")):
        raise ValueError("a question mark in a path is written %3F")
    return Path(read.database)


def missing_driver(error: BaseException | None) -> str:
    """Return which driver a database needs and how it is installed, or an empty string for any other error."""
    while error is not None:
        if isinstance(error, ImportError):
            # psycopg without the library of PostgreSQL's client names no module.
            name = (error.name or "psycopg" * ("pq wrapper" in str(error))).partition(".")[0]
            if name:
                return f"its driver {name} is not installed: pip install {DRIVERS.get(name, name)}"
        error = error.__cause__ or error.__context__
    return ""


def is_same_database(one: str, other: str) -> bool:
    """Return whether two addresses name one database, whatever their drivers, users and options are."""
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
