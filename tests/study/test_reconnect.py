"""Retries of an unavailable database, and the error after a long outage."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError, PendingRollbackError

from dropsearch.core.errors import RunError
from dropsearch.study import reconnect
from dropsearch.study.reconnect import patiently, retried
from dropsearch.study.storage import engine_options, open_storage
from dropsearch.study.store import StudyStore
from dropsearch.study.studies import check_studies, identity, load_studies, missing_studies
from tests.study.conftest import ask, ended, make_feed, work


class Database:
    """Succeeds after a number of failures."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.failures, self.error = failures, error

    def __call__(self) -> str:
        self.failures -= 1
        if self.failures >= 0:
            raise self.error
        return "answer"


class DriverError(Exception):
    """What a driver of a server raises."""


def dropped() -> OperationalError:
    return OperationalError("SELECT 1", {}, DriverError("server closed the connection unexpectedly"))


def wrapped() -> StorageInternalError:
    error = StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = dropped()
    return error


def broken_session() -> StorageInternalError:
    """What Optuna makes of a connection that is dropped while it reads trials."""
    error = StorageInternalError("An exception is raised during the commit.")
    error.__cause__ = PendingRollbackError("Can't reconnect until invalid transaction is rolled back.")
    error.__cause__.__context__ = dropped()
    return error


LOCKED = OperationalError("INSERT", {}, sqlite3.OperationalError("database is locked"))
FULL = OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect, "FIRST_PAUSE", 0.0)


@pytest.mark.parametrize(
    "error", [dropped(), wrapped(), broken_session(), LOCKED], ids=["dropped", "wrapped", "broken session", "locked"]
)
def test_outage_is_retried_and_reported_once(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert patiently("s/none", Database(3, error)) == "answer"
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("the storage of study s/none is unavailable (")
    assert said.endswith("retrying for 60 s\n")


@pytest.mark.parametrize("error", [FULL, OSError(28, "No space left on device"), StorageInternalError("bad value")])
def test_permanent_errors_are_raised_immediately(error: Exception) -> None:
    database = Database(1, error)
    with pytest.raises(RunError, match="the storage of study s/none failed"):
        patiently("s/none", database)
    assert database.failures == 0


def test_long_outage_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect, "PATIENCE", 0.0)
    with pytest.raises(RunError, match=r"failed \(.*server closed the connection unexpectedly\)"):
        patiently("s/none", Database(1000, dropped()))


def test_study_continues_after_a_locked_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    storage = RDBStorage(f"sqlite:///{tmp_path}/study.db", engine_kwargs={"connect_args": {"timeout": 0.01}})
    store = StudyStore(storage, "s/dropout", arm="dropout", phase="search", fingerprint={})
    feed = make_feed(store)
    spec = ask(feed)
    other = sqlite3.connect(tmp_path / "study.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store._bulk = Releasing(store._bulk, other)  # type: ignore[assignment]
    feed.tell([ended(spec)])
    assert "is unavailable (database is locked)" in capsys.readouterr().err
    assert [result.spec for result in store.results()] == [spec]
    other.close()
    storage.engine.dispose()


class Outage:
    """Drops the connection of every engine at a statement, by its number; counts all statements."""

    def __init__(self, at: int, times: int = 5) -> None:
        self.at, self.left, self.seen = at, times, 0

    def __call__(self, *_: object) -> None:
        self.seen += 1
        if self.seen > self.at and self.left:
            self.left -= 1
            raise dropped()


def life(folder: Path, outage: Outage) -> list[tuple[str, int]]:
    """Open a storage, run a small study in it, and read it for a report, while its server is away once."""
    url = f"sqlite:///{folder}/study.db"
    event.listen(Engine, "before_cursor_execute", outage)
    try:
        storage = open_storage(url, folder / "study.journal")
        check_studies(storage, {"s/dropout": {}})
        store = StudyStore(storage, "s/dropout", arm="dropout", phase="search", fingerprint={})
        work(make_feed(store, total=3))
        assert identity(storage, "s")
        assert list(missing_studies(storage, ["s/dropout", "s/none"])) == ["s/none"]
        results = store.results()
        store.note("test", {"loss": [0.1]})
        assert store.notes == {"test": {"loss": [0.1]}}
        assert load_studies(url, folder / "study.journal", ["s/dropout"]).keys() == {"s/dropout"}
        storage.engine.dispose()  # type: ignore[attr-defined]
        return [(result.state, result.spec.seed) for result in results]
    finally:
        event.remove(Engine, "before_cursor_execute", outage)


@pytest.mark.slow
def test_a_dropped_connection_is_survived_at_every_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "whole").mkdir()
    counted = Outage(at=10**9)
    whole = life(tmp_path / "whole", counted)
    assert len(whole) == 3
    for at in range(5, counted.seen, max(1, counted.seen // 11)):
        folder = tmp_path / str(at)
        folder.mkdir()
        assert life(folder, Outage(at)) == whole
        assert "server closed the connection unexpectedly); retrying for 60 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    "said",
    [
        'FATAL:  password authentication failed for user "ann"',
        'database "studies" does not exist',
        'could not translate host name "nowhere" to address',
    ],
)
def test_a_refusal_comes_at_once(said: str) -> None:
    refusing = Database(1, OperationalError("connect", {}, DriverError(said)))
    with pytest.raises(OperationalError):
        retried("the storage", refusing)
    assert refusing.failures == 0


def test_a_server_that_swallows_connections_is_noticed() -> None:
    options = engine_options("postgresql+psycopg://h/studies?connect_timeout=3")
    assert options["pool_pre_ping"]
    assert options["connect_args"].keys() == {
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_count",
        "tcp_user_timeout",
    }


class Releasing:
    """Passes all on, and has the other writer let go after the first failure."""

    def __init__(self, bulk: object, other: sqlite3.Connection) -> None:
        self._bulk, self._other = bulk, other

    def __getattr__(self, name: str) -> object:
        act = getattr(self._bulk, name)

        def tried(*given: object) -> object:
            try:
                return act(*given)
            except OperationalError:
                self._other.execute("ROLLBACK")
                raise

        return tried
