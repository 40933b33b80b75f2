"""The wheel, built from the source distribution and installed away from the checkout."""

from __future__ import annotations

import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.packaging.programs import ROOT, run

SMALL = (
    "study.n_trials=2",
    "arms=[none,dropout]",
    "data.train_size=300",
    "trainer.max_epochs=1",
    "confirm.top_k=1",
    "confirm.seeds=2",
    "evidence.severities=1",
    "evidence.monte_carlo=[1,2]",
)

pytestmark = pytest.mark.slow


def test_the_wheel_holds_the_package_its_configuration_and_the_licence_and_nothing_else(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = [name for name in wheel.namelist() if not name.endswith("/")]
    here = [p.relative_to(ROOT) for folder in ("dropsearch", "conf") for p in (ROOT / folder).rglob("*")]
    expected = {p.as_posix() for p in here if p.suffix in (".py", ".typed", ".html", ".css", ".js")}
    expected |= {f"dropsearch/{p.as_posix()}" for p in here if p.suffix == ".yaml"}
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_source_distribution_holds_what_it_takes_to_test_it(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"LICENSE", "README.md", "pyproject.toml", "conf/config.yaml", "scripts/test", "scripts/constraints.txt"}
    assert wanted | {"tests/packaging/test_wheel.py", "dropsearch/cli.py"} <= names


def test_the_installed_program_shows_the_configuration_that_it_brings(bin_folder: Path, tmp_path: Path) -> None:
    where = run(str(bin_folder / "python"), "-c", "import dropsearch; print(dropsearch.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(bin_folder.parent)
    shown = run(str(bin_folder / "dropsearch"), "--cfg", "job", "model=cnn", cwd=tmp_path)
    assert "channels:" in shown
    assert list(tmp_path.iterdir()) == []


def test_the_installed_program_searches_and_confirms_in_an_empty_folder(bin_folder: Path, tmp_path: Path) -> None:
    program = (str(bin_folder / "python"), "-m", "dropsearch", *SMALL, "engine=sequential", "tracking=none")
    assert "Use " in run(*program, cwd=tmp_path)
    results = json.loads((tmp_path / "outputs/mlp-digits/results.json").read_text())
    assert [len(arm["trials"]) for arm in results["arms"].values()] == [2, 2]
    assert [len(arm["winner"]["test_acc"]) for arm in results["arms"].values()] == [2, 2]
