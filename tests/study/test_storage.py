"""Databases whose driver is not installed: the message says how to install it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dropsearch.core.errors import InputError
from dropsearch.study.storage import check_storage
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
