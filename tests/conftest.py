from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A machine that is busy may take any time over an example: no test is timed.
settings.register_profile("untimed", deadline=None, max_examples=30)
settings.load_profile("untimed")

MLFLOW_WARNINGS = (
    # Its models of its own tables use a loader strategy that SQLAlchemy 2.1 deprecates.
    "ignore:The ``noload`` loader strategy is deprecated",
    # It says so of types of its own, when mlflow.pyfunc is imported.
    "ignore:.*Any type hint is inferred as AnyType",
)
WITH_MLFLOW = [Path(__file__).parent / package for package in ("api", "experiment", "tracking")]

SRUN = "ignore:The `srun` command is available"
"""Lightning warns so wherever SLURM is installed."""

WHOLE_RUNS = [
    Path(__file__).parent / place
    for place in (
        *("api", "experiment", "packaging", "parity", "tracking/mlflow", "training/vectorized"),
        *("training/test_hugging_face.py", "training/test_multiprocess.py"),
    )
]
"""Tests of whole trials and runs, installed packages and databases: `-m "not slow"` leaves them out."""


@pytest.fixture(autouse=True, scope="module")
def _own_imports() -> Iterator[None]:
    """Forget the user code that a file of tests imports: another file has modules of the same names."""
    path = [*sys.path]
    known = {*sys.modules}
    installed = tuple(folder for folder in path if folder)
    yield
    sys.path[:] = path
    for name in {*sys.modules} - known:
        place = getattr(sys.modules[name], "__file__", None)
        if place is not None and not place.startswith(installed):
            del sys.modules[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(place in (item.path, *item.path.parents) for place in WHOLE_RUNS):
            item.add_marker(pytest.mark.slow)
        if item.path.name != "test_slurm.py":
            item.add_marker(pytest.mark.filterwarnings(SRUN))
        if any(folder in item.path.parents for folder in WITH_MLFLOW):
            for warning in MLFLOW_WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))
    # Files with long tests first, so that at the end no process is busy for long while the others have nothing to do.
    long = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in long)
