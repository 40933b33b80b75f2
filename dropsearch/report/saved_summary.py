"""Lossless saving and loading of the summary of a run."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from dropsearch.core.atomic_io import atomic_write
from dropsearch.core.errors import InputError
from dropsearch.core.records import Summary
from dropsearch.core.records.codec import decode, encode

FILE = "summary.json.gz"
"""File name in the output directory."""
FORMAT = 1
"""Format version; it changes when earlier files can no longer be read."""


def save_summary(summary: Summary, folder: Path) -> Path:
    """Write the summary to an output directory atomically and return the path."""
    content = json.dumps({"format": FORMAT, "summary": encode(summary)}, allow_nan=False).encode()
    with atomic_write(folder / FILE) as temporary:
        temporary.write_bytes(gzip.compress(content, compresslevel=6, mtime=0))
    return folder / FILE


def load_summary(folder: Path) -> Summary:
    """Read the summary of a finished run.

    Raises:
        InputError: The folder has no such file, or an unreadable one.
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
            "repeat the command to write it again"
        ) from error
