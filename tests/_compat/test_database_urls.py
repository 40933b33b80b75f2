"""An SQLite address means one file, whatever characters its path has."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from dropsearch._compat.database_urls import is_same_database, sqlite_file, sqlite_url

NAMES = ["study.db", "a b.db", "a%20b.db", "a%41.db", "a?b.db", "a?b=c&d.db", "a#b.db", "{x}.db", "ü'\".db", "100%.db"]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_comes_back(name: str, tmp_path: Path) -> None:
    assert sqlite_file(sqlite_url(tmp_path / name)) == tmp_path / name


@pytest.mark.parametrize("name", NAMES)
def test_sqlalchemy_opens_that_file_and_no_other(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE cats (name TEXT)")
    engine = create_engine(sqlite_url(path))
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM cats").scalar() == 0
    engine.dispose()
    assert [found.name for found in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite://", "memory"),
        ("sqlite:///:memory:", "memory"),
        ("sqlite:///a?b.db", "%3F"),
        ("sqlite:///file:a.db?uri=true", "file: URI"),
        ("sqlite://ann:pw@host/a.db", "no host"),
        ("sqlite//a.db", "not a database URL"),
    ],
)
def test_what_means_no_file_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        sqlite_file(url)


def test_options_are_let_pass() -> None:
    assert sqlite_file("sqlite:///a.db?timeout=60") == Path("a.db")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("sqlite:///a.db", "sqlite+pysqlite:///./a.db", True),
        ("sqlite:///a.db", "sqlite:///b.db", False),
        ("postgresql://ann:x@localhost/db", "postgresql+psycopg://bob@127.0.0.1:5432/db?sslmode=require", True),
        ("postgresql://localhost/db", "postgresql://localhost/other", False),
        ("postgresql://localhost:5433/db", "postgresql://localhost/db", False),
        ("postgresql://localhost/db", "http://localhost/db", False),
        ("postgresql://localhost/db", "databricks", False),
    ],
)
def test_addresses_of_one_database_are_known(one: str, other: str, same: bool) -> None:
    assert is_same_database(one, other) is same
