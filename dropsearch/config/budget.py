"""What `budget=` says: time, or a number of trials."""

from __future__ import annotations

import re
from dataclasses import dataclass

SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h)(?![a-z])", re.IGNORECASE)
_TRIALS = re.compile(r"(\d+)\s*trials?", re.IGNORECASE)


@dataclass(frozen=True)
class Budget:
    """How much a run may take; one of both is 0."""

    seconds: float = 0.0
    trials: int = 0
    """Trainings in all arms, those of the confirmation among them."""


def parsed(text: str) -> Budget | None:
    """Return a budget; None where the text is none.

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
