"""How databases are opened: by several processes at once, and without their driver."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from optuna.storages import RDBStorage
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from dropsearch.core.errors import InputError
from dropsearch.study import storage
from dropsearch.study.storage import check_storage, open_storage
from dropsearch.tracking.mlflow.address import Address, _check_database

URLS = [
    ("postgresql://ann:secret@localhost/db", "psycopg", '"dropsearch[postgres]"'),
    ("postgresql+psycopg://localhost/db", "psycopg", '"dropsearch[postgres]"'),
    ("postgresql+psycopg2://localhost/db", "psycopg2", "psycopg2-binary"),
    ("mysql://localhost/db", "MySQLdb", "mysqlclient"),
    ("mysql+pymysql://localhost/db", "pymysql", "pymysql"),
]


@pytest.mark.parametrize(("url", "module", "package"), URLS)
def test_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch, url: str, module: str, package: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    for use in (lambda: check_storage(url, Path("j")), lambda: _check_database(Address(url, "tracking.uri", None))):
        with pytest.raises(InputError) as caught:
            use()
        assert str(caught.value).endswith(f"its driver {module} is not installed: pip install {package}")
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "said", "attempts"),
    [
        (ProgrammingError, 'type "studydirection" already exists', 3),
        (OperationalError, "table studies already exists", 3),
        (IntegrityError, "duplicate key value violates unique constraint", 3),
        (ProgrammingError, "permission denied for schema public", 1),
    ],
)
def test_a_database_whose_tables_another_process_creates_is_opened_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: type[Exception], said: str, attempts: int
) -> None:
    made: list[RDBStorage | None] = []

    def make(url: str, **options: object) -> RDBStorage:
        made.append(None)
        if len(made) < 3:
            raise kind("CREATE TABLE", {}, Exception(said))  # type: ignore[call-arg]
        return RDBStorage(url, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(storage, "RDBStorage", make)
    monkeypatch.setattr(storage, "PAUSES", (0.0,) * 5)
    url = f"sqlite:///{tmp_path}/study.db"
    if attempts == 1:
        with pytest.raises(InputError, match=said):
            open_storage(url, tmp_path / "j")
    else:
        opened = open_storage(url, tmp_path / "j")
        opened.engine.dispose()  # type: ignore[attr-defined]
    assert len(made) == attempts
