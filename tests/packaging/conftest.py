"""The wheel, installed where nothing of the checkout can be seen."""

from __future__ import annotations

import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.packaging.programs import ROOT, run


@pytest.fixture(scope="session")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT), cwd=folder)
    return folder


@pytest.fixture(scope="session")
def bin_folder(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has dropsearch from the wheel and borrows everything else."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, symlinks=True)
    found = home / "bin"
    wheel = str(next(dist.glob("*.whl")))
    installing = ("install", "--quiet", "--no-deps", "--no-index", wheel)
    run(sys.executable, "-m", "pip", "--python", str(found / "python"), *installing, cwd=home)
    # A .pth inside a folder that a .pth names is not read, so an editable dropsearch stays out of sight.
    site = next(home.glob("lib/python*/site-packages"))
    (site / "borrowed.pth").write_text("\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}))
    return found
