"""Entry points of Lightning's callbacks, read once: Lightning reads those of all packages for each Trainer."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata

_read = functools.cache(metadata.entry_points)


@contextmanager
def entry_points_once(package: str) -> Iterator[None]:
    """Let Trainers that are created within the context take the entry points that were read for the first of them."""
    fabric = "lightning.fabric" if package.startswith("lightning.") else "lightning_fabric"
    names = vars(importlib.import_module(f"{fabric}.utilities.registry"))
    before, names["entry_points"] = names["entry_points"], _read
    try:
        yield
    finally:
        names["entry_points"] = before
