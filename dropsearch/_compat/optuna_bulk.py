"""What a study writes to its storage in one call, and the protocol of what writes it."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib import import_module
from typing import Any, Protocol

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.trial import FrozenTrial, TrialState

Curves = Mapping[int, Mapping[int, float]]
"""Values to add by trial id and step."""
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def private_module(module: str) -> Any:
    """Import a private module of Optuna; None where this version of Optuna has no such module."""
    try:
        return import_module(module)
    except ImportError:
        return None


@dataclass(frozen=True)
class Ending:
    """How a trial ends, and what is written with its end."""

    trial: FrozenTrial
    """The trial as it ran, with its whole curve."""
    state: TrialState
    value: float | None = None
    curve: Mapping[int, float] = field(default_factory=dict)
    """By step, the values that are not written yet."""
    user_attrs: Mapping[str, Any] = field(default_factory=dict)
    system_attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trial_id(self) -> int:
        """The id in the storage."""
        return self.trial._trial_id


class Bulk(Protocol):
    """One study of a storage."""

    def look(self) -> list[FrozenTrial]:
        """Return the trials that were created or ended since the last look, by whomever, in order of their numbers."""
        ...

    def attrs(self) -> Mapping[str, Any]:
        """Return the study's user attributes as they were at the last look or later."""
        ...

    def read(self, trial_ids: Sequence[int]) -> list[FrozenTrial]:
        """Return trials as they are now."""
        ...

    def create(self, templates: Sequence[FrozenTrial]) -> tuple[list[FrozenTrial], bool]:
        """Create running trials at once; return them, and whether another process created some since the last look."""
        ...

    def end(self, endings: Sequence[Ending]) -> list[tuple[FrozenTrial, bool]]:
        """End trials; return how each is now, and whether it was still running and ended as told."""
        ...

    def write(self, curves: Curves, attrs: Mapping[str, Any]) -> None:
        """Add values to running trials, and set user attributes of the study."""
        ...


def ended(ending: Ending, now: datetime) -> FrozenTrial:
    """Return an ended trial as the storage would give it."""
    trial = copy.copy(ending.trial)
    trial.state, trial.datetime_complete = ending.state, now
    trial.value = ending.value
    trial.user_attrs = {**trial.user_attrs, **json.loads(json.dumps(dict(ending.user_attrs)))}
    trial.system_attrs = {**trial.system_attrs, **ending.system_attrs}
    return trial


@cache
def as_json(distribution: BaseDistribution) -> str:
    """Return a distribution as storages have it."""
    return distribution_to_json(distribution)
