"""Results on the test set, example by example, and the files that keep them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from dropsearch.experiment.scoring import ExampleResults


def test_results_by_example_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = ExampleResults([0.5, 0.25, 2.0], [1.0, 1.0, 0.0])
    written.write(tmp_path / "new" / "3-11.npz")
    read = ExampleResults.read(tmp_path / "new" / "3-11.npz")
    assert read is not None
    assert list(read.loss) == [0.5, 0.25, 2.0]
    assert list(read.correct) == [1.0, 1.0, 0.0]


def _pickled() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, loss=np.array([print], dtype=object), correct=np.array([1.0]))
    return stream.getvalue()


def _unequal() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, loss=np.zeros(3), correct=np.zeros(2))
    return stream.getvalue()


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut short", _pickled(), _unequal()])
def test_a_file_that_holds_something_else_is_not_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "3-11.npz"
    path.write_bytes(content)
    assert ExampleResults.read(path) is None


def test_a_file_that_is_not_there_has_no_results(tmp_path: Path) -> None:
    assert ExampleResults.read(tmp_path / "3-11.npz") is None
