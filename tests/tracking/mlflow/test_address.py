from __future__ import annotations

import os
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dropsearch.core.errors import InputError
from dropsearch.tracking.mlflow.address import check_reachable, resolve


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that lets everybody in and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_the_configured_uri_wins_over_the_environments(tmp_path: Path):
    address = resolve("http://one:5000", "http://two:5000", tmp_path)
    assert (address.uri, address.origin) == ("http://one:5000", "tracking.uri")


def test_the_environments_uri_wins_over_the_default(tmp_path: Path):
    address = resolve(None, "http://two:5000", tmp_path)
    assert (address.uri, address.origin) == ("http://two:5000", "MLFLOW_TRACKING_URI")


def test_the_default_is_a_database_in_the_output_directory_with_artifacts_beside_it(tmp_path: Path):
    address = resolve(None, "", tmp_path)
    assert address.database == tmp_path / "mlflow.db"
    assert address.artifacts == (tmp_path / "mlartifacts").as_uri()


def test_artifacts_lie_beside_a_database_that_is_somewhere_else(tmp_path: Path):
    address = resolve(f"sqlite:///{tmp_path}/shared/all.db", None, tmp_path / "output")
    assert address.artifacts == (tmp_path / "shared" / "mlartifacts").as_uri()


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert resolve("sqlite:///all.db", None, tmp_path / "output").database == tmp_path / "all.db"


def test_a_server_keeps_its_own_artifacts(tmp_path: Path):
    assert resolve("https://host/mlflow", None, tmp_path).artifacts is None


@pytest.mark.parametrize("uri", ["./mlruns", "/abs/mlruns", "file:///abs/mlruns", "sqlite://", "sqlite:///:memory:"])
def test_where_nothing_would_last_or_mlflow_refuses_is_refused(uri: str, tmp_path: Path):
    with pytest.raises(InputError, match=r"\(tracking\.uri\): .*use sqlite:////"):
        resolve(uri, None, tmp_path)


def test_a_password_is_not_shown(tmp_path: Path):
    address = resolve("http://ann:secret@host:5000/x", None, tmp_path)
    assert address.shown == "http://ann:***@host:5000/x"
    assert "secret" not in str(address.refuse("rule", f"no answer from {address.uri}"))


@pytest.mark.parametrize("scheme", ["http", "https", "postgresql+psycopg2", "mysql"])
def test_a_closed_port_is_said_at_once_in_one_line(scheme: str, closed_port: int, tmp_path: Path):
    address = resolve(None, f"{scheme}://127.0.0.1:{closed_port}/db", tmp_path)
    with pytest.raises(InputError) as caught:
        check_reachable(address)
    message = str(caught.value)
    assert "\n" not in message
    for part in (address.uri, "MLFLOW_TRACKING_URI", "refused", "tracking.uri", "tracking=none"):
        assert part in message


def test_a_server_that_never_answers_is_given_up_within_five_seconds(silent_port: int, tmp_path: Path):
    begin = time.monotonic()
    with pytest.raises(InputError, match="timed out after 3 s"):
        check_reachable(resolve(f"http://127.0.0.1:{silent_port}", None, tmp_path))
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("uri", ["http://127.0.0.1:99999", "http://nowhere.invalid:5000"])
def test_an_address_that_cannot_exist_is_refused(uri: str, tmp_path: Path):
    with pytest.raises(InputError, match=r"MLflow's server must be reachable, got .* \(tracking\.uri\)"):
        check_reachable(resolve(uri, None, tmp_path))


def test_a_file_that_is_no_database_is_refused(tmp_path: Path):
    (tmp_path / "mlflow.db").write_text("these are the times that try men's souls")
    with pytest.raises(InputError, match=r"\(output_dir\): file is not a database"):
        check_reachable(resolve(None, None, tmp_path))


def test_a_database_of_another_program_is_refused_unchanged(tmp_path: Path):
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("CREATE TABLE studies (study_id INTEGER)")
    connection.close()
    before = (tmp_path / "study.db").read_bytes()
    with pytest.raises(InputError, match=r"other tables \(studies\)"):
        check_reachable(resolve(f"sqlite:///{tmp_path}/study.db", None, tmp_path))
    assert (tmp_path / "study.db").read_bytes() == before


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="must be an SQLite file that can be written"):
        check_reachable(resolve(f"sqlite:///{tmp_path}/file/mlflow.db", None, tmp_path))


def test_a_locked_database_is_refused(output_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dropsearch.tracking.mlflow.address.SECONDS", 0.1)
    holder = sqlite3.connect(output_dir / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(InputError, match="database is locked"):
        check_reachable(resolve(None, None, output_dir))
    holder.close()


@pytest.mark.parametrize("name", ["mlflow.db", ""])
def test_a_database_that_can_only_be_read_is_refused(output_dir: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != output_dir / name)
    with pytest.raises(InputError, match=f"can be written, got .*{name} cannot be written"):
        check_reachable(resolve(None, None, output_dir))


def test_a_good_database_is_let_pass(output_dir: Path):
    check_reachable(resolve(None, None, output_dir))


def test_a_database_that_is_not_there_yet_is_let_pass(tmp_path: Path):
    check_reachable(resolve(None, None, tmp_path / "new" / "folder"))
    assert not list(tmp_path.rglob("*.db"))
