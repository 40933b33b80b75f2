"""What runs on a GPU when one is at hand runs here in small, so that no minute there is lost on a mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_the_gpu_check_is_rehearsed(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable, "OUT": str(tmp_path)}
    done = subprocess.run(
        [ROOT / "scripts" / "gpu" / "check", "--rehearse"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = {path.stem: json.loads(path.read_text())["found"] for path in tmp_path.glob("[!t]*.json")}
    found["table"] = json.loads((tmp_path / "table.json").read_text())["found"]
    assert set(found) == {"laws", "table", "at_once", "widths", "profile", "whole"}
    assert '"failed"' not in json.dumps(found), found
    assert found["table"]["digits-mlp"]["times plain"] > 0
