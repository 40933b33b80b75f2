"""Where MLflow writes, and whether anybody is there."""

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
from dropsearch.core.errors import CAUSE, InputError
from dropsearch.core.printable import masked, one_line

SECONDS = 3.0
"""How long a server has to answer a first knock."""
PORTS = {"http": 80, "https": 443, **database_urls.PORTS}
OTHERWISE = "start it, set tracking.uri to another one, or run with tracking=none"


@dataclass(frozen=True)
class Address:
    """A tracking URI and what must be known to use it."""

    uri: str
    origin: str
    """The key that the URI comes from: tracking.uri, MLFLOW_TRACKING_URI or output_dir."""
    artifacts: str | None
    """The URI of a folder for artifacts, None where the server has its own."""

    @property
    def scheme(self) -> str:
        """What stands before the colon, without a driver: `postgresql+psycopg2` is `postgresql`."""
        return urlsplit(self.uri).scheme.split("+")[0]

    @property
    def database(self) -> Path:
        """The file of an SQLite address."""
        return sqlite_file(self.uri)

    @property
    def is_yet_to_be_made(self) -> bool:
        """Whether this is an SQLite file that is not there."""
        return self.scheme == "sqlite" and not self.database.exists()

    @property
    def shown(self) -> str:
        """The URI without a password or token."""
        return masked(self.uri)

    def refuse(self, rule: str, cause: object) -> InputError:
        """Return the error that says which URI broke which rule, where it comes from and what to do."""
        lines = self.hide(str(cause)).strip().splitlines() or ["no reason given"]
        return InputError(f"{rule}, got {self.shown} ({self.origin}): {one_line(lines[0], CAUSE)}")

    def hide(self, text: str) -> str:
        """Return `text` without passwords, also where it names this address in another form."""
        return masked(text.replace(self.uri, self.shown))


def resolve(uri: str | None, environment: str | None, output_dir: Path) -> Address:
    """Return the address: the configured URI, else the environment's, else SQLite in `output_dir`.

    Raises:
        InputError: a plain folder, or SQLite in memory.
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
            "it keeps runs in plain folders no more; use sqlite:////absolute/path/mlflow.db or http://host:port",
        )
    if address.scheme in ("postgresql", "mysql", "mssql"):
        return address
    return Address(text, origin, artifacts=None)


def _default(folder: Path) -> str:
    try:
        return sqlite_url(folder / "mlflow.db")
    except ValueError as error:
        raise InputError(
            f'output_dir must be a folder that an SQLite address can name, got "{folder}": {error}'
        ) from error


def _sqlite(address: Address) -> Address:
    """Make the file's path absolute; artifacts lie beside it, so that who finds the one finds the other."""
    try:
        database = address.database.absolute()
        return Address(sqlite_url(database), address.origin, (database.parent / "mlartifacts").as_uri())
    except ValueError as error:
        raise address.refuse("MLflow needs a file", f"{error}; use sqlite:////absolute/path/mlflow.db") from error


def knock(address: Address) -> None:
    """Check within a few seconds that something usable answers at `address`.

    MLflow itself would try for minutes before it says that nobody is there.

    Raises:
        InputError: nobody answers, the file cannot be written or belongs to something else.
    """
    if address.scheme == "sqlite":
        _knock_sqlite(address)
    elif address.scheme in PORTS:
        _knock_port(address)
        (_knock_http if address.scheme.startswith("http") else _knock_database)(address)


def _knock_port(address: Address) -> None:
    rule = "MLflow's server must answer"
    try:
        parts = urlsplit(address.uri)
        port = parts.port or PORTS[address.scheme]
        socket.create_connection((parts.hostname or "localhost", port), timeout=SECONDS).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise address.refuse(rule, f"{str(reason).lower()}; {OTHERWISE}") from error


def _knock_http(address: Address) -> None:
    """Ask for the health page; any answer will do, for a proxy may want a password for it."""
    parts = urlsplit(address.uri)
    bare = parts._replace(netloc=parts.netloc.rsplit("@", 1)[-1], path=parts.path.rstrip("/") + "/health")
    try:
        urllib.request.urlopen(urlunsplit(bare), timeout=SECONDS).close()
    except urllib.error.HTTPError as error:
        error.close()
    except (OSError, ValueError) as error:
        raise address.refuse("MLflow's server must answer", f"{error}; {OTHERWISE}") from error


def _knock_database(address: Address) -> None:
    import sqlalchemy  # comes with mlflow

    try:
        engine = sqlalchemy.create_engine(address.uri)
        engine.connect().close()
        engine.dispose()
    except Exception as error:  # each driver has exceptions of its own
        raise address.refuse("MLflow's database must let us in", missing_driver(error) or error) from error


def _knock_sqlite(address: Address) -> None:
    rule = "MLflow's database must be an SQLite file that can be written"
    try:
        address.database.parent.mkdir(parents=True, exist_ok=True)
        if not address.database.exists():  # whoever comes first makes it whole; an empty file would not do
            tempfile.TemporaryFile(dir=address.database.parent).close()
            return
        for path in (address.database, address.database.parent):
            if not os.access(path, os.W_OK):  # SQLite begins to write what it can only read, and fails later
                raise PermissionError(f"{path} cannot be written")
        with contextlib.closing(sqlite3.connect(address.database, timeout=SECONDS)) as connection:
            connection.execute("BEGIN IMMEDIATE").close()
            connection.rollback()
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    except (OSError, sqlite3.Error) as error:
        raise address.refuse(rule, f"{error}; set tracking.uri to another one or run with tracking=none") from error
    if tables and "experiments" not in tables:
        raise address.refuse(rule, f"it holds tables of something else ({sorted(tables)[0]}); set tracking.uri")
