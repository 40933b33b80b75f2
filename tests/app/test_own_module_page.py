"""docs/own-module.md and its example: what they show runs, in little."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from tests.app.conftest import Cli
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


def little(code: str) -> str:
    """Return code with small numbers in the place of those that a reader would take."""
    for name, number in NUMBERS.items():
        code = re.sub(rf"\b{name}=\d+", f"{name}={number}", code)
    return code.replace("output_dir=", "confirm_top_k=1, confirm_seeds=1, engine='alone', output_dir=")


def test_the_page_has_commands_and_code():
    assert len(commands(PAGE)) == 4
    assert len(blocks("python", PAGE.read_text())) == 1


@pytest.mark.parametrize("number", range(4))
def test_a_command_of_the_page_runs(folder: Path, cli: Cli, number: int):
    words = commands(PAGE)[number]
    assert words[:3] == ["python", "-m", "dropsearch"]
    ended = cli(*words[3:], *LITTLE)
    assert ended.status == 0, ended.err
    assert "To load the model to keep" in ended.out or "batchnorm.replace=identity" in words


def test_the_code_of_the_page_runs(folder: Path, capsys: pytest.CaptureFixture[str]):
    (code,) = blocks("python", PAGE.read_text())
    exec(compile(little(code), str(PAGE), "exec"), {})
    assert "Arms: less val_loss is better" in capsys.readouterr().out


def test_the_example_runs(folder: Path, capsys: pytest.CaptureFixture[str]):
    script = folder / "own_module.py"
    script.write_text(little(script.read_text()).replace("confirm_seeds=1", "confirm_seeds=1, confirm_top_k=1"))
    runpy.run_path(str(script), run_name="__main__")
    assert "rates to train with: {" in capsys.readouterr().out
