"""The scripts that run on a GPU alone run here in small, so that no minute there is lost on a mistake.

The other sections of `scripts/gpu/check` run tests and searches that the suite runs anyway.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


SECTIONS = ("table", "widths", "profile")


@pytest.mark.slow
def test_the_small_gpu_check_runs(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable, "OUT": str(tmp_path)}
    command = [ROOT / "scripts" / "gpu" / "check", "--small", *SECTIONS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {name: json.loads((tmp_path / f"{name}.json").read_text())["found"] for name in SECTIONS}
    assert '"failed"' not in json.dumps(found), found
    assert found["table"]["digits-mlp"]["times plain"] > 0
