"""The protocol for bulk writes to an Optuna storage."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from importlib import import_module
from typing import Any, Protocol

from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.trial import FrozenTrial, TrialState

Curves = Mapping[int, Mapping[int, float]]
"""Intermediate values to add, by trial id and step."""
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def private_module(module: str) -> Any:
    """Import a private module of Optuna; return None if this version does not have it."""
    try:
        return import_module(module)
    except ImportError:
        return None


@dataclass(frozen=True)
class Ending:
    """The final state of a trial and the values written with it."""

    trial: FrozenTrial
    """The trial with its whole curve."""
    state: TrialState
    value: float | None = None
    curve: Mapping[int, float] = field(default_factory=dict)
    """Intermediate values not yet written, by step."""
    user_attrs: Mapping[str, Any] = field(default_factory=dict)
    system_attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def trial_id(self) -> int:
        """The id in the storage."""
        return self.trial._trial_id


class Bulk(Protocol):
    """Bulk access to one study of a storage."""

    def look(self) -> list[FrozenTrial]:
        """Return trials created or ended since the last call, by any process, in order of their numbers."""
        ...

    def attrs(self) -> Mapping[str, Any]:
        """Return the study's user attributes, at least as recent as the last `look`."""
        ...

    def read(self, trial_ids: Sequence[int]) -> list[FrozenTrial]:
        """Return the current state of trials."""
        ...

    def create(self, templates: Sequence[FrozenTrial]) -> tuple[list[FrozenTrial], bool]:
        """Create running trials; return them and whether another process created trials since the last `look`."""
        ...

    def end(self, endings: Sequence[Ending]) -> list[tuple[FrozenTrial, bool]]:
        """End trials; return each trial's current state and whether this call ended it (it was still running)."""
        ...

    def write(self, curves: Curves, attrs: Mapping[str, Any]) -> None:
        """Add values to running trials, and set user attributes of the study."""
        ...


def ended(ending: Ending, now: datetime) -> FrozenTrial:
    """Return an ended trial as the storage would return it."""
    trial = copy.copy(ending.trial)
    trial.state, trial.datetime_complete = ending.state, now
    trial.value = ending.value
    trial.user_attrs = {**trial.user_attrs, **json.loads(json.dumps(dict(ending.user_attrs)))}
    trial.system_attrs = {**trial.system_attrs, **ending.system_attrs}
    return trial


def as_json(distribution: BaseDistribution) -> str:
    """Return a distribution in the JSON form of Optuna's storages."""
    return _as_json(distribution, _types(distribution))


@cache
def _as_json(distribution: BaseDistribution, types: tuple[type, ...]) -> str:
    return distribution_to_json(distribution)


def _types(distribution: BaseDistribution) -> tuple[type, ...]:
    """Return the types of the choices, to distinguish distributions that compare equal, such as True and 1."""
    return tuple(map(type, getattr(distribution, "choices", ())))


def share(trial: FrozenTrial) -> None:
    """Replace values of a trial that are equal in many trials by shared objects, to save memory."""
    trial.distributions = shared(trial.distributions)
    trial.params, trial.user_attrs = _interned(trial.params), _interned(trial.user_attrs)
    trial.system_attrs = _interned(trial.system_attrs)


def shared(distributions: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    """Return the shared object of equal distributions."""
    return _shared(tuple(distributions.items()), tuple(map(_types, distributions.values())))


@cache
def _shared(
    items: tuple[tuple[str, BaseDistribution], ...], types: tuple[tuple[type, ...], ...]
) -> dict[str, BaseDistribution]:
    return dict(items)


def _interned(values: Any) -> Any:
    """Return values with shared objects for names, including those of inner mappings, and for short strings."""
    if isinstance(values, dict):
        return {sys.intern(name): _interned(value) for name, value in values.items()}
    return sys.intern(values) if isinstance(values, str) and len(values) < _SHORT else values


_SHORT = 100
"""Maximum length of a shared string, such as the name of a process."""
