"""Optuna's studies by name: opened, made, checked, and known by an id that moves with the storage."""

from __future__ import annotations

import json
import re
import time
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage
from optuna.study import StudyDirection

from dropsearch.core.errors import InputError
from dropsearch.core.records import ARMS
from dropsearch.study.reconnect import patiently
from dropsearch.study.retrainings import RETRAININGS

FINGERPRINT, IDENTITY = "fingerprint", "id"
_PART = re.compile(rf"/(confirm|repeat-[0-9]+|{'|'.join(each.study for each in RETRAININGS.values())})$")
"""What follows an arm's name in the names of its studies beside the first search."""
_PATIENCE = 2.0
"""Seconds in which another process, which has just made a study, will have noted its id."""


def open_study(
    storage: BaseStorage, name: str, fingerprint: Mapping[str, Any], pruner: BasePruner | None
) -> optuna.Study:
    """Return the study of this name, which is made where there is none.

    Raises:
        InputError: It was made by another configuration, or not by dropsearch.
        RunError: The storage failed.
    """
    return patiently(name, lambda: _opened(storage, name, fingerprint, pruner))


def _opened(storage: BaseStorage, name: str, fingerprint: Mapping[str, Any], pruner: BasePruner | None) -> optuna.Study:
    study = _found(storage, name, pruner)  # first, for even an attempt to make it would write to a journal
    if study is None:
        study = _made(storage, name, pruner)
    else:
        _check_same(study, _plain(fingerprint))
    if FINGERPRINT not in study.user_attrs:
        study.set_user_attr(FINGERPRINT, _plain(fingerprint))
    return study


def _made(storage: BaseStorage, name: str, pruner: BasePruner | None) -> optuna.Study:
    try:
        study = optuna.create_study(storage=storage, study_name=name, direction="minimize", pruner=pruner)
        shared = _PART.sub("", name).rpartition("/")[0]
        study.set_user_attr(IDENTITY, _noted(storage, shared) or uuid.uuid4().hex[:8])
    except DuplicatedStudyError:  # another process was faster
        study = optuna.load_study(storage=storage, study_name=name, pruner=pruner)
    return study


def missing_studies(storage: BaseStorage, names: Iterable[str]) -> list[str]:
    """Return those of the names of which a storage holds no study. Nothing is written."""
    wanted = list(names)
    there = set(patiently(", ".join(wanted), lambda: optuna.get_all_study_names(storage)))
    return [name for name in wanted if name not in there]


def check_studies(storage: BaseStorage, fingerprints: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that the studies which a storage holds under these names can be continued. Nothing is written.

    Args:
        storage: Where the studies are, if they are there.
        fingerprints: By study name, what must be the same for it to be continued.

    Raises:
        InputError: A study of one of these names was made by another configuration, or not by dropsearch.
        RunError: The storage failed.
    """
    for name, fingerprint in fingerprints.items():
        patiently(name, partial(_check_study, storage, name, fingerprint))


def _check_study(storage: BaseStorage, name: str, fingerprint: Mapping[str, Any]) -> None:
    study = _found(storage, name)
    if study is not None:
        _check_same(study, _plain(fingerprint))


def _found(storage: BaseStorage, name: str, pruner: BasePruner | None = None) -> optuna.Study | None:
    # What fails afterwards must not fail while the KeyError is handled: it would be named as the cause.
    try:
        return optuna.load_study(study_name=name, storage=storage, pruner=pruner)
    except KeyError:
        return None


def identity(storage: BaseStorage, name: str) -> str:
    """Return the id that the studies called `name/...` share: no other storage holds studies of that id.

    A path or an address would not do: two machines may have the same, and a folder may be moved.

    Raises:
        RunError: The storage failed.
    """
    return patiently(name, lambda: _identity(storage, name))


def _identity(storage: BaseStorage, name: str) -> str:
    until = time.monotonic() + _PATIENCE
    while (found := _noted(storage, name)) is None and time.monotonic() < until:
        time.sleep(0.05)
    if found is None:  # who made them was killed before it noted one
        found = uuid.uuid4().hex[:8]
        first = min(study for study in optuna.get_all_study_names(storage) if _is_of(study, name))
        optuna.load_study(storage=storage, study_name=first).set_user_attr(IDENTITY, found)
    return found


def _noted(storage: BaseStorage, name: str) -> str | None:
    names = [study for study in optuna.get_all_study_names(storage) if _is_of(study, name)]
    attrs = [optuna.load_study(storage=storage, study_name=study).user_attrs for study in names]
    return min((a[IDENTITY] for a in attrs if IDENTITY in a), default=None)


def _is_of(study: str, name: str) -> bool:
    """Say whether a study is one of `name/ARM`, alone or with its part; a name may hold slashes of its own."""
    return study.startswith(f"{name}/") and _PART.sub("", study).removeprefix(f"{name}/") in ARMS


def _plain(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fingerprint as it reads when it has been through JSON."""
    return json.loads(json.dumps(dict(fingerprint)))


def _check_same(study: optuna.Study, given: Mapping[str, Any]) -> None:
    name, stored = study.study_name, study.user_attrs.get(FINGERPRINT)
    if stored is None and not study.trials and study.directions == [StudyDirection.MINIMIZE]:
        return  # its maker was killed before the first trial
    if stored is None:
        raise InputError(
            f'study.name must be new or a study that dropsearch made, got "{name}", which is another study in this '
            "storage: choose another study.name or study.storage"
        )
    for key in sorted({*stored, *given}, key=lambda key: (key != "seed", key)):  # other keys may follow the seed
        if stored.get(key) != given.get(key):
            raise InputError(
                f"{key} must be as it was when study {name} began ({stored.get(key)}), got {given.get(key)}: "
                "choose another study.name to begin anew"
            )


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna's notes on experimental features off the terminal: they were chosen on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
