"""Atomic file writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dropsearch.core.atomic_io import atomic_write

ROOT = Path(__file__).parents[2]


def test_draft_replaces_file(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file.txt"
    for text in ("old", "new"):
        with atomic_write(path) as temporary:
            temporary.write_text(text)
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_failure_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail() -> None:
        with atomic_write(path) as temporary:
            temporary.write_text("half of the n")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_stale_drafts_are_removed(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from dropsearch.core.atomic_io import atomic_write; "
        "temporary = atomic_write(Path(sys.argv[1])).__enter__(); temporary.write_text('half'); os._exit(9)"
    )
    path = tmp_path / "file.txt"
    done = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, check=False)
    assert done.returncode == 9
    assert len(list(tmp_path.iterdir())) == 1
    living = tmp_path / ".file.txt.1"
    living.write_text("process 1 is always alive")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
    assert sorted(tmp_path.iterdir()) == [living, path]
