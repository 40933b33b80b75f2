"""MLflow's settings while a tracker is active: quiet loggers and short retries."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

LEVELS = {
    "mlflow": logging.WARNING,
    "mlflow.store.db.utils": logging.CRITICAL,
    "mlflow.utils.databricks_utils": logging.ERROR,
    "alembic": logging.WARNING,
    "urllib3.connectionpool": logging.ERROR,
}
"""Loggers to silence: MLflow logs each table that it creates, the traceback of each error and other ways to log in;
urllib3 logs retries."""
SETTINGS = {
    # By default, a request to a dead server takes four minutes to fail.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # Lines about ended runs would break the progress bar.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
HASTE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "4"}
"""Settings for the first requests, which check whether the server is reachable."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Raise the levels of verbose loggers within the context."""
    before = {name: logging.getLogger(name).level for name in LEVELS}
    for name, level in LEVELS.items():
        logging.getLogger(name).setLevel(max(level, before[name]))
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def settings(wanted: dict[str, str]) -> Iterator[None]:
    """Set MLflow's environment variables that the user has not set, within the context."""
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
