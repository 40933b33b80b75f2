"""The server that tests start says why it ends early."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.free_port import free_port
from tests.tracking.mlflow.mlflow_pages import start_server, wait_for


def test_a_server_that_ends_early_shows_its_errors(tmp_path: Path) -> None:
    (tmp_path / "mlflow.py").write_text("raise SystemExit('no space left')")  # found before MLflow, in the folder
    database, port = tmp_path / "mlflow.db", free_port()
    with start_server(port, database, {}) as server, pytest.raises(RuntimeError, match=r"status 1: .*no space left"):
        wait_for(server, port, database)
