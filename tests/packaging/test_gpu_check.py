"""The scripts that run on a GPU alone run here in small, so that no minute there is lost on a mistake.

The other sections of `scripts/gpu/check` run tests and searches that the suite runs anyway.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.experiment.forked_runs import RunForker

ROOT = Path(__file__).parent.parent.parent
SECTIONS = ("table", "widths", "profile")
SHOW = """#!/bin/sh
if [ "$1" = -c ]; then exit 0; fi
printf "%s\\n" "$PYTHONPATH" "$@"
"""
"""In the place of Python: shows what would be run, and finds every library."""


@pytest.mark.slow
def test_the_small_gpu_check_runs(run_forker: RunForker, tmp_path: Path) -> None:
    out, show = tmp_path / "out", tmp_path / "python"
    show.write_text(SHOW)
    show.chmod(0o755)
    command = [ROOT / "scripts" / "gpu" / "check", "--small", *SECTIONS]
    environment = {**os.environ, "PYTHON": str(show), "OUT": str(out)}
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    path, *words = shown.stdout.splitlines()
    done = run_forker.python(ROOT, *words, setup=f"import sys; sys.path[1:1] = {path.split(os.pathsep)}")
    assert done.returncode == 0, done.stderr
    found = {name: json.loads((out / f"{name}.json").read_text())["found"] for name in SECTIONS}
    assert '"failed"' not in json.dumps(found), found
    assert found["table"]["digits-mlp"]["times plain"] > 0
