"""Programs that run away from the checkout."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str, cwd: Path, given: str = "") -> str:
    """Run a program that must succeed, without the variables that tell Python where modules are; return its output."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment["OMP_NUM_THREADS"] = "1"  # small networks lose by threads where others want the cores
    done = subprocess.run(command, cwd=cwd, env=environment, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
