"""The repository holds sources, and no outputs of runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OUTPUTS = {".ckpt", ".npz", ".journal", ".lock", ".db", ".gz", ".pt"}
"""Suffixes of files that runs write."""


def test_no_outputs_of_runs():
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout of the repository")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [name for name in listed.split("\0") if name]
    assert "pyproject.toml" in names
    assert [name for name in names if Path(name).suffix in OUTPUTS] == []
