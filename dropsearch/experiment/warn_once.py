"""Showing each warning of user code once instead of in every trial."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def each_warning_once() -> Iterator[None]:
    """Show each warning once while the context lasts, in this process and processes forked later.

    Python resets its record of shown warnings whenever a filter is set, as around each fit.
    """
    shown: set[tuple[str, str, int]] = set()
    show = warnings.showwarning

    def once(message: Any, category: Any, filename: str, lineno: int, *more: Any, **options: Any) -> None:
        seen = (str(message), filename, lineno)
        if seen not in shown:
            shown.add(seen)
            show(message, category, filename, lineno, *more, **options)

    warnings.showwarning = once
    try:
        yield
    finally:
        warnings.showwarning = show
