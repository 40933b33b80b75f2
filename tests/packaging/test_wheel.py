"""The wheel, built from the source distribution and installed away from the checkout."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.packaging.test_pages import blocks

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("study.n_trials=2", "arms=[none,dropout]", "trainer.max_epochs=1", "confirm.top_k=1", "confirm.seeds=2")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    _run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT), cwd=folder)
    return folder


@pytest.fixture(scope="module")
def bin_folder(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has dropsearch from the wheel and borrows everything else."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    found = home / "bin"
    wheel = str(next(dist.glob("*.whl")))
    installing = ("install", "--quiet", "--no-deps", "--no-index", wheel)
    _run(sys.executable, "-m", "pip", "--python", str(found / "python"), *installing, cwd=home)
    # A .pth inside a folder that a .pth names is not read, so an editable dropsearch stays out of sight.
    site = next(home.glob("lib/python*/site-packages"))
    (site / "borrowed.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))
    return found


def _run(*command: str, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_wheel_holds_the_package_its_configuration_and_the_licence_and_nothing_else(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = [name for name in wheel.namelist() if not name.endswith("/")]
    here = [p.relative_to(ROOT) for folder in ("dropsearch", "conf") for p in (ROOT / folder).rglob("*")]
    expected = {p.as_posix() for p in here if p.suffix in (".py", ".html", ".css", ".js")}
    expected |= {f"dropsearch/{p.as_posix()}" for p in here if p.suffix == ".yaml"}
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_source_distribution_holds_what_it_takes_to_test_it(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"LICENSE", "README.md", "pyproject.toml", "conf/config.yaml", "scripts/test", "scripts/constraints.txt"}
    assert wanted | {"tests/packaging/test_wheel.py", "dropsearch/__main__.py"} <= names


def test_the_installed_program_shows_the_configuration_that_it_brings(bin_folder: Path, tmp_path: Path) -> None:
    where = _run(str(bin_folder / "python"), "-c", "import dropsearch; print(dropsearch.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(bin_folder.parent)
    shown = _run(str(bin_folder / "dropsearch"), "--cfg", "job", "model=cnn", cwd=tmp_path)
    assert "channels:" in shown
    assert list(tmp_path.iterdir()) == []


def test_the_installed_program_searches_and_confirms_in_an_empty_folder(bin_folder: Path, tmp_path: Path) -> None:
    program = (str(bin_folder / "python"), "-m", "dropsearch", *SMALL, "engine=alone", "tracking=none")
    assert "Paired differences" in _run(*program, cwd=tmp_path)
    results = json.loads((tmp_path / "outputs/mlp-digits/results.json").read_text())
    assert [len(arm["trials"]) for arm in results["arms"].values()] == [2, 2]
    assert [len(arm["winner"]["test_acc"]) for arm in results["arms"].values()] == [2, 2]


def test_the_examples_run_with_the_installed_package_away_from_the_checkout(bin_folder: Path, tmp_path: Path) -> None:
    example = (ROOT / "examples" / "own_module.py").read_text()
    for argument in ("n_trials", "max_epochs", "confirm_seeds"):
        example = re.sub(rf"{argument}=\d+", f"{argument}=1", example)
    (tmp_path / "own_module.py").write_text(example.replace("confirm_seeds=1", "confirm_seeds=1, confirm_top_k=1"))
    shown = re.split(r"^## ", (ROOT / "docs" / "guide.md").read_text(), flags=re.MULTILINE)
    (guide,) = (part for part in shown if part.startswith("On your own module, in Python"))
    (tmp_path / "guide.py").write_text("\n".join(blocks("python", guide)))
    code = "import runpy; runpy.run_path('own_module.py', run_name='__main__'); runpy.run_path('guide.py')"
    printed = _run(str(bin_folder / "python"), "-c", code, cwd=tmp_path)
    assert "rates to train with: {" in printed
    assert printed.endswith("".join(blocks("text", guide)))
