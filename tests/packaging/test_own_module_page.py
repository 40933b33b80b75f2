"""docs/own-module.md and its example: what they show runs, in little."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.test_pages import ROOT, blocks, commands

PAGE = ROOT / "docs" / "own-module.md"
LITTLE = (
    "study.n_trials=1",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "confirm.top_k=1",
    "confirm.seeds=1",
    "tracking=none",
    "engine.processes=1",
)
NUMBERS = {"n_trials": 1, "max_epochs": 1, "confirm_seeds": 1}


def run(folder: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *words]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def little(code: str) -> str:
    """Return code with small numbers in the place of those that a reader would take."""
    for name, number in NUMBERS.items():
        code = re.sub(rf"\b{name}=\d+", f"{name}={number}", code)
    return code.replace("output_dir=", "confirm_top_k=1, confirm_seeds=1, output_dir=")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own_module.py").write_text((ROOT / "examples" / "own_module.py").read_text())
    return tmp_path


def test_the_page_has_commands_and_code():
    assert len(commands(PAGE)) == 3
    assert len(blocks("python", PAGE.read_text())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", range(3))
def test_a_command_of_the_page_runs(folder: Path, number: int):
    words = commands(PAGE)[number]
    assert "To load the model to keep" in run(folder, *words[1:], *LITTLE)


@pytest.mark.slow
def test_the_code_of_the_page_runs(folder: Path):
    (code,) = blocks("python", PAGE.read_text())
    assert "Arms: less val_loss is better" in run(folder, "-c", little(code))


@pytest.mark.slow
def test_the_example_runs(folder: Path):
    script = folder / "own_module.py"
    script.write_text(little(script.read_text()))
    assert "rates to train with: {" in run(folder, "own_module.py")
