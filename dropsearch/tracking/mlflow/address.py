"""Resolution of MLflow's tracking URI, a check that it is reachable, and the creation of an SQLite file."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from dropsearch._compat import database_urls
from dropsearch._compat.database_urls import missing_driver, sqlite_file, sqlite_url
from dropsearch.core.atomic_io import temporary_path
from dropsearch.core.errors import CAUSE, InputError
from dropsearch.core.printable import masked, one_line

SECONDS = 3.0
"""Timeout of the first request to a server, in seconds."""
PORTS = {"http": 80, "https": 443, **database_urls.PORTS}
OTHERWISE = "start the server, set tracking.uri to another one, or run with tracking=none"


@dataclass(frozen=True)
class Address:
    """A tracking URI, its origin and its artifact location."""

    uri: str
    origin: str
    """The setting that the URI comes from: tracking.uri, MLFLOW_TRACKING_URI or output_dir."""
    artifacts: str | None
    """URI of the artifact folder; None if the server provides it."""

    @property
    def scheme(self) -> str:
        """The scheme without a driver: `postgresql` for `postgresql+psycopg2`."""
        return urlsplit(self.uri).scheme.split("+")[0]

    @property
    def database(self) -> Path:
        """The file of an SQLite URI."""
        return sqlite_file(self.uri)

    @property
    def is_yet_to_be_made(self) -> bool:
        """Whether this is an SQLite file that does not exist."""
        return self.scheme == "sqlite" and not self.database.exists()

    @property
    def shown(self) -> str:
        """The URI without a password or token."""
        return masked(self.uri)

    def refuse(self, rule: str, cause: object) -> InputError:
        """Return an error with the rule, the URI, its origin and the cause."""
        lines = self.hide(str(cause)).strip().splitlines() or ["no reason given"]
        return InputError(f"{rule}, got {self.shown} ({self.origin}): {one_line(lines[0], CAUSE)}")

    def hide(self, text: str) -> str:
        """Return `text` with passwords masked, including other spellings of this URI."""
        return masked(text.replace(self.uri, self.shown))


def resolve(uri: str | None, environment: str | None, output_dir: Path) -> Address:
    """Return the configured URI, the one of the environment, or an SQLite file in `output_dir`, in this order.

    Raises:
        InputError: The URI is a file store or an SQLite database in memory.
    """
    folder = output_dir.absolute()
    text, origin = next(
        (given, key)
        for given, key in (
            (uri, "tracking.uri"),
            (environment, "MLFLOW_TRACKING_URI"),
            (_default(folder), "output_dir"),
        )
        if given
    )
    address = Address(text, origin, artifacts=(folder / "mlartifacts").as_uri())
    if address.scheme == "sqlite":
        return _sqlite(address)
    if address.scheme in ("", "file") and text != "databricks":
        raise address.refuse(
            "MLflow needs a database or a server",
            "file stores are not supported by MLflow 3.13 and later; use sqlite:////absolute/path/mlflow.db or http://host:port",
        )
    if address.scheme in ("postgresql", "mysql", "mssql"):
        return address
    return Address(text, origin, artifacts=None)


def _default(folder: Path) -> str:
    try:
        return sqlite_url(folder / "mlflow.db")
    except ValueError as error:
        raise InputError(
            f'output_dir must be a folder that an SQLite URL can contain, got "{folder}": {error}'
        ) from error


def _sqlite(address: Address) -> Address:
    """Make the file's path absolute and store artifacts next to it."""
    try:
        database = address.database.absolute()
        return Address(sqlite_url(database), address.origin, (database.parent / "mlartifacts").as_uri())
    except ValueError as error:
        raise address.refuse("MLflow needs a file", f"{error}; use sqlite:////absolute/path/mlflow.db") from error


def check_reachable(address: Address) -> None:
    """Check within a few seconds that `address` is reachable and usable; MLflow itself retries for minutes."""
    if address.scheme == "sqlite":
        _check_sqlite(address)
    elif address.scheme in PORTS:
        _check_port(address)
        (_check_http if address.scheme.startswith("http") else _check_database)(address)


def _check_port(address: Address) -> None:
    rule = "MLflow's server must be reachable"
    try:
        parts = urlsplit(address.uri)
        port = parts.port or PORTS[address.scheme]
        socket.create_connection((parts.hostname or "localhost", port), timeout=SECONDS).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise address.refuse(rule, f"{str(reason).lower()}; {OTHERWISE}") from error


def _check_http(address: Address) -> None:
    """Request the health page. Any answer suffices, since a proxy may require a password."""
    parts = urlsplit(address.uri)
    bare = parts._replace(netloc=parts.netloc.rsplit("@", 1)[-1], path=parts.path.rstrip("/") + "/health")
    try:
        urllib.request.urlopen(urlunsplit(bare), timeout=SECONDS).close()
    except urllib.error.HTTPError as error:
        error.close()
    except (OSError, ValueError) as error:
        cause = f"timed out after {SECONDS:g} s" if "timed out" in str(error) else str(error)
        raise address.refuse("MLflow's server must be reachable", f"{cause}; {OTHERWISE}") from error


def _check_database(address: Address) -> None:
    import sqlalchemy  # comes with mlflow

    try:
        engine = sqlalchemy.create_engine(address.uri)
        engine.connect().close()
        engine.dispose()
    except Exception as error:  # each driver has its own exceptions
        raise address.refuse("MLflow's database must accept a connection", missing_driver(error) or error) from error


def _check_sqlite(address: Address) -> None:
    rule = "MLflow's database must be an SQLite file that can be written"
    try:
        address.database.parent.mkdir(parents=True, exist_ok=True)
        if not address.database.exists():  # created completely or not at all, see `make_database`
            tempfile.TemporaryFile(dir=address.database.parent).close()
            return
        for path in (address.database, address.database.parent):
            if not os.access(path, os.W_OK):  # SQLite opens a read-only file and fails later
                raise PermissionError(f"{path} cannot be written")
        with contextlib.closing(sqlite3.connect(address.database, timeout=SECONDS)) as connection:
            connection.execute("BEGIN IMMEDIATE").close()
            connection.rollback()
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    except (OSError, sqlite3.Error) as error:
        raise address.refuse(rule, f"{error}; set tracking.uri to another one or run with tracking=none") from error
    if tables and "experiments" not in tables:
        raise address.refuse(rule, f"it contains other tables ({sorted(tables)[0]}); set tracking.uri")


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
