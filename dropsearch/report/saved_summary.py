"""The summary of a run as a file: everything that was found, read back without loss."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from dropsearch.core.atomic_io import atomic_write
from dropsearch.core.errors import InputError
from dropsearch.core.records import Summary
from dropsearch.core.records.codec import decode, encode

FILE = "summary.json.gz"
"""Its name in the output directory."""
FORMAT = 1
"""Changes when files of earlier versions can no longer be read."""


def save_summary(summary: Summary, folder: Path) -> Path:
    """Write the summary into an output directory, whole or not at all, and return the path."""
    content = json.dumps({"format": FORMAT, "summary": encode(summary)}, allow_nan=False).encode()
    with atomic_write(folder / FILE) as temporary:
        temporary.write_bytes(gzip.compress(content, compresslevel=6, mtime=0))
    return folder / FILE


def load_summary(folder: Path) -> Summary:
    """Read the summary of a finished run.

    Raises:
        InputError: The folder holds no such file, or one that cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        raise InputError(f'output_dir must be that of a finished run, got "{folder}" (it has no {FILE}): run it first')
    try:
        content = json.loads(gzip.decompress(path.read_bytes()))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']}, not {FORMAT}")
        return decode(Summary, content["summary"])
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} must be a summary that this version of dropsearch wrote ({type(error).__name__}: {error}): "
            "give the same command again, and it is written anew"
        ) from error
