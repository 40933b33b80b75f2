"""A clock that tests move."""

from __future__ import annotations


class Clock:
    """A clock whose time is `now`, in seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now
