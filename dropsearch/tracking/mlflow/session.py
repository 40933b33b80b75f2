"""How MLflow behaves while a tracker is at work: quiet, and soon done with a dead server."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

LEVELS = {
    "mlflow": logging.WARNING,
    "mlflow.store.db.utils": logging.CRITICAL,
    "alembic": logging.WARNING,
    "urllib3.connectionpool": logging.ERROR,
}
"""MLflow tells of each table that it creates, and prints the traceback of an error that it raises as well, urllib3
tells of each attempt."""
SETTINGS = {
    # Without these, one request to a server that died takes four minutes to fail.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # A line for each run that ends would tear the progress bar apart.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
HASTE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "4"}
"""For the first requests, whose failure is an answer."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Raise the levels of loggers that talk too much, and restore them afterwards."""
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
    """Set those of MLflow's documented variables that the user has not set, and unset them afterwards."""
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
