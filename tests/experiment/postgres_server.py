"""A PostgreSQL server of one's own, on the loopback interface, that can be stopped, started and crashed."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from tests.free_port import free_port

USER = "postgres"


def missing() -> str:
    """Return what is missing to start a server; empty where nothing is."""
    if _program("pg_ctl") is None or _program("initdb") is None:
        return "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    if importlib.util.find_spec("psycopg") is None:
        return "the driver psycopg is not installed (pip install 'psycopg[binary]')"
    if os.geteuid() == 0 and USER not in {user.pw_name for user in pwd.getpwall()}:
        return "there is no user postgres, and PostgreSQL does not run as root"
    return ""


def _program(name: str) -> str | None:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name) or next((str(path / name) for path in folders if (path / name).exists()), None)


class PostgresServer:
    """A server with an empty cluster in a temporary folder. Use as a context manager."""

    def __enter__(self) -> PostgresServer:
        self._folder = tempfile.mkdtemp(prefix="dropsearch-postgresql-")
        self._data = str(Path(self._folder) / "data")
        if os.geteuid() == 0:
            shutil.chown(self._folder, USER)
        self.port = free_port()
        self._call("initdb", "-D", self._data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync")
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call("pg_ctl", "-D", self._data, "-m", "immediate", "stop", check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server, which recovers first where it was crashed."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._folder} -c fsync=off"
        log = str(Path(self._folder) / "log")
        self._call("pg_ctl", "-D", self._data, "-w", "-t", "120", "-l", log, "-o", options, "start")

    def crash(self) -> None:
        """Stop the server at once, as a crash would."""
        self._call("pg_ctl", "-D", self._data, "-w", "-m", "immediate", "stop")

    def database(self, name: str) -> str:
        """Create an empty database and return its URL."""
        self._query(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{name}"

    def drop_connections(self, name: str) -> int:
        """End all connections to a database; return how many there were."""
        return self._query(f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}'")

    def _query(self, statement: str) -> int:
        import psycopg  # no dependency of the project

        address = f"host=127.0.0.1 port={self.port} user={USER} dbname=postgres"
        with psycopg.connect(address, autocommit=True) as connection:
            answer = connection.execute(statement)
            return int(answer.fetchone()[0]) if answer.description else 0

    def _call(self, program: str, *arguments: str, check: bool = True) -> None:
        path = _program(program)
        assert path, missing()
        subprocess.run(
            [path, *arguments],
            check=check,
            cwd=self._folder,
            user=USER if os.geteuid() == 0 else None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
