"""Parsing of `budget=`: a duration or a number of trials."""

from __future__ import annotations

import re
from dataclasses import dataclass

SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h)(?![a-z])", re.IGNORECASE)
_TRIALS = re.compile(r"(\d+)\s*trials?", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """The limit of a run: seconds or trials; the other one is 0."""

    seconds: float = 0.0
    trials: int = 0
    """Number of trainings in all arms, including the confirmation."""


def parsed(text: str) -> Budget | None:
    """Return the budget that a text describes, or None if it describes none.

    Example:
        >>> parsed("1h30m")
        Budget(seconds=5400.0, trials=0)
        >>> parsed("500 trials")
        Budget(seconds=0.0, trials=500)
    """
    words = text.strip()
    if found := _TRIALS.fullmatch(words):
        return Budget(trials=int(found[1])) if int(found[1]) else None
    parts = _TIME.findall(words)
    if not parts or _TIME.sub("", words).strip():
        return None
    seconds = sum(float(number) * SECONDS[unit.lower()] for number, unit in parts)
    return Budget(seconds=seconds) if seconds > 0 else None


def is_time(text: str | None) -> bool:
    """Return whether a budget is a duration."""
    found = parsed(text or "")
    return found is not None and found.seconds > 0
