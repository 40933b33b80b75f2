"""Reads files with known size and sha256; errors name the file and the command that replaces it."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path

from dropsearch.core.errors import InputError
from dropsearch.datasets.catalogue import DataSet, RawFile


def fetch_command(name: str, root: str | Path) -> str:
    """Return the command that fetches a data set into `root`."""
    return f"scripts/fetch_data {name}" + ("" if str(root) == "data" else f" --root {root}")


def path_of(folder: Path, file: RawFile) -> Path | None:
    """Return the path of `file` in `folder`, plain or compressed with gzip, or None."""
    candidates = (folder / file.name, folder / f"{file.name}.gz")
    return next((path for path in candidates if path.is_file()), None)


def folder_of(data_set: DataSet, root: str | Path) -> Path:
    """Return the folder with all files of a data set, in `root` or of the system's package, or raise `InputError`."""
    folders = [Path(root) / data_set.name, *([Path(data_set.installed)] if data_set.installed else [])]
    for folder in folders:
        if all(path_of(folder, file) for file in data_set.files):
            return folder
    searched = " and ".join(str(folder) for folder in folders)
    command = fetch_command(data_set.name, root)
    raise InputError(
        f"data {data_set.name} must be fetched before use, but {searched} lacks files "
        f"(data.root={root}): run `{command}`"
    )


def content_of(path: Path, file: RawFile) -> bytes:
    """Return the decompressed content of `path` after checking its size and sha256.

    Raises ValueError if they differ from those of `file` or the gzip file is truncated, and OSError.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as stream:
            content = stream.read(file.size + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"must be a complete gzip file ({error})") from error
    if len(content) != file.size:
        got = f"{len(content)}" if len(content) < file.size else "more"
        raise ValueError(f"must have {file.size} bytes, got {got}")
    if (sha256 := hashlib.sha256(content).hexdigest()) != file.sha256:
        raise ValueError(f"must have sha256 {file.sha256[:16]}..., got {sha256[:16]}...")
    return content


def is_verified(folder: Path, file: RawFile) -> bool:
    """Return whether `folder` has `file` with the expected size and checksum."""
    path = path_of(folder, file)
    if path is None:
        return False
    try:
        content_of(path, file)
    except (ValueError, OSError):
        return False
    return True


def digest_of(files: Sequence[RawFile]) -> str:
    """Return a sha256 of a data set, computed from those of its files in the order of the catalogue."""
    return hashlib.sha256("\n".join(file.sha256 for file in files).encode()).hexdigest()
