"""Warnings of user code: each is shown once, not with every trial."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def each_warning_once() -> Iterator[None]:
    """Show a warning once while the context lasts, in this process and in those that it forks later.

    Python forgets what it has shown whenever a filter is set, as around each fit; and modules are built by the hundred.
    """
    shown: set[tuple[str, str, int]] = set()
    show = warnings.showwarning

    def once(message: Any, category: Any, filename: str, lineno: int, *more: Any, **options: Any) -> None:
        said = (str(message), filename, lineno)
        if said not in shown:
            shown.add(said)
            show(message, category, filename, lineno, *more, **options)

    warnings.showwarning = once
    try:
        yield
    finally:
        warnings.showwarning = show
