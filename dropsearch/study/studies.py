"""Opening and creating Optuna studies, what must not change in them, and their ids, which move with the storage."""

from __future__ import annotations

import json
import re
import time
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage
from optuna.study import StudyDirection

from dropsearch.core.errors import InputError
from dropsearch.core.printable import MASK, changed_leaves, masked
from dropsearch.core.records import ARMS
from dropsearch.study.reconnect import patiently
from dropsearch.study.retrainings import RETRAININGS
from dropsearch.study.storage import open_storage, storage_exists

CODE = "code"
"""Key of a fingerprint with digests of user code by name."""


def plain(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fingerprint after a JSON round trip."""
    return json.loads(json.dumps(dict(fingerprint)))


def without_secrets(value: Any) -> Any:
    """Return a fingerprint as it is stored, without the passwords and tokens that this run remembers."""
    return changed_leaves(value, "", lambda _, each: masked(each) if isinstance(each, str) else each)


def same(one: Any, other: Any) -> bool:
    """Return whether values are equal, apart from what is masked in one of them."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, str) and isinstance(other, str) and MASK in one + other:
        return _fits(one.split(MASK), other) or _fits(other.split(MASK), one)
    return one == other


def _fits(pieces: Sequence[str], text: str) -> bool:
    """Return whether text consists of the pieces, with anything between them."""
    first, *inner = pieces
    if not inner:
        return text == first
    if not text.startswith(first) or not text[len(first) :].endswith(inner[-1]):
        return False
    at, end = len(first), len(text) - len(inner[-1])
    for piece in inner[:-1]:
        at = text.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True


def changed_code(stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return the names of classes, functions and settings whose code differs.

    A name of one side alone is no change: what names it has changed, or has only now imported it.
    """
    before, now = stored.get(CODE, {}), given.get(CODE, {})
    return sorted(name for name in before.keys() & now.keys() if before[name] != now[name])


FINGERPRINT, IDENTITY = "fingerprint", "id"
CODE_CHANGES = "code changes"
"""Attribute with the names of what has changed in user code."""
_PART = re.compile(rf"/(confirm|repeat-[0-9]+|{'|'.join(each.study for each in RETRAININGS.values())})$")
"""Suffixes of study names, after the arm's name, of studies other than the first search."""
MOST_NAMES = 4
"""Number of changed classes and functions that a sentence names."""
_PATIENCE = 2.0
"""Seconds to wait for another process to store the id of a study that it has just created."""


def open_study(
    storage: BaseStorage,
    name: str,
    fingerprint: Mapping[str, Any],
    pruner: BasePruner | None,
    allow_code_changes: bool = False,
) -> optuna.Study:
    """Return the study with this name; create it if necessary.

    If user code may change and has changed, the study notes it and has the given fingerprint from then on.

    Raises:
        InputError: The study is from another configuration or another program.
        RunError: The storage failed.
    """
    return patiently(name, lambda: _opened(storage, name, plain(fingerprint), pruner, allow_code_changes))


def _opened(
    storage: BaseStorage, name: str, given: Mapping[str, Any], pruner: BasePruner | None, allow_code_changes: bool
) -> optuna.Study:
    study = _found(storage, name, pruner)  # first, since an attempt to create it writes to a journal
    if study is None:
        study = _made(storage, name, pruner)
    else:
        _check_same(study, given, allow_code_changes)
    stored, given = study.user_attrs.get(FINGERPRINT), without_secrets(given)
    if stored and (changed := changed_code(stored, given)):
        study.set_user_attr(CODE_CHANGES, sorted({*study.user_attrs.get(CODE_CHANGES, ()), *changed}))
    if stored:  # the same, and what was stored is not masked by the secrets of a later run
        kept = {key: stored[key] for key in stored.keys() & given.keys() - {CODE}}
        # What this process has not imported yet stays.
        code = {CODE: {**stored.get(CODE, {}), **given[CODE]}} if CODE in given else {}
        given = {**given, **kept, **code}
    if stored != given:
        study.set_user_attr(FINGERPRINT, given)
    return study


def _made(storage: BaseStorage, name: str, pruner: BasePruner | None) -> optuna.Study:
    try:
        study = optuna.create_study(storage=storage, study_name=name, direction="minimize", pruner=pruner)
        shared = _PART.sub("", name).rpartition("/")[0]
        study.set_user_attr(IDENTITY, _noted(storage, shared) or uuid.uuid4().hex[:8])
    except DuplicatedStudyError:  # another process created it
        study = optuna.load_study(storage=storage, study_name=name, pruner=pruner)
    return study


def missing_studies(storage: BaseStorage, names: Iterable[str]) -> list[str]:
    """Return the names without a study in the storage, without writing anything."""
    wanted = list(names)
    there = set(patiently(", ".join(wanted), lambda: optuna.get_all_study_names(storage)))
    return [name for name in wanted if name not in there]


def study_names(storage: BaseStorage) -> set[str]:
    """Return the names of the studies that dropsearch made, without the arm, without writing anything."""
    return {
        _PART.sub("", name).rpartition("/")[0]
        for name in optuna.get_all_study_names(storage)
        if _PART.sub("", name).rpartition("/")[2] in ARMS
    } - {""}


def load_studies(storage: Any, journal: Path, names: Iterable[str]) -> dict[str, optuna.Study]:
    """Return studies by their names.

    Args:
        storage: An Optuna storage, its URL, or the path of a journal file; None for `journal`.
    """
    if not storage_exists(storage, journal):
        raise InputError(
            f"the study's storage must exist, got {storage or journal}: pass storage=..., or run the search again"
        )
    opened = open_storage(storage, journal)
    try:
        return {name: patiently(name, partial(optuna.load_study, study_name=name, storage=opened)) for name in names}
    except KeyError as error:
        raise InputError(f"the storage must contain the studies {', '.join(names)}, but lacks one of them") from error


def check_studies(
    storage: BaseStorage, fingerprints: Mapping[str, Mapping[str, Any]], allow_code_changes: bool = False
) -> None:
    """Check that existing studies with these names can be continued, without writing anything."""
    for name, fingerprint in fingerprints.items():
        patiently(name, partial(_check_study, storage, name, plain(fingerprint), allow_code_changes))


def _check_study(storage: BaseStorage, name: str, given: Mapping[str, Any], allow_code_changes: bool) -> None:
    study = _found(storage, name)
    if study is not None:
        _check_same(study, given, allow_code_changes)


def _found(storage: BaseStorage, name: str, pruner: BasePruner | None = None) -> optuna.Study | None:
    # Outside of the handler, so that later errors do not have the KeyError as their cause.
    try:
        return optuna.load_study(study_name=name, storage=storage, pruner=pruner)
    except KeyError:
        return None


def identity(storage: BaseStorage, name: str) -> str:
    """Return the globally unique id of the studies `name/...`.

    A path or URL is no id, since two machines may have the same one and a folder may be moved.
    """
    return patiently(name, lambda: _identity(storage, name))


def _identity(storage: BaseStorage, name: str) -> str:
    until = time.monotonic() + _PATIENCE
    while (found := _noted(storage, name)) is None and time.monotonic() < until:
        time.sleep(0.05)
    if found is None:  # the creating process was killed before it stored an id
        found = uuid.uuid4().hex[:8]
        first = min(study for study in optuna.get_all_study_names(storage) if _is_of(study, name))
        optuna.load_study(storage=storage, study_name=first).set_user_attr(IDENTITY, found)
    return found


def _noted(storage: BaseStorage, name: str) -> str | None:
    names = [study for study in optuna.get_all_study_names(storage) if _is_of(study, name)]
    attrs = [optuna.load_study(storage=storage, study_name=study).user_attrs for study in names]
    return min((a[IDENTITY] for a in attrs if IDENTITY in a), default=None)


def _is_of(study: str, name: str) -> bool:
    """Return whether a study is `name/ARM` with an optional suffix; `name` may contain slashes."""
    return study.startswith(f"{name}/") and _PART.sub("", study).removeprefix(f"{name}/") in ARMS


def _check_same(study: optuna.Study, given: Mapping[str, Any], allow_code_changes: bool) -> None:
    name, stored = study.study_name, study.user_attrs.get(FINGERPRINT)
    if stored is None and not study.trials and study.directions == [StudyDirection.MINIMIZE]:
        return  # the creating process was killed before the first trial
    if stored is None:
        raise InputError(
            f'study.name must be new or a study that dropsearch made, got "{name}", which is another study in this '
            "storage: choose another study.name or study.storage"
        )
    for key in sorted(
        {*stored, *given} - {CODE}, key=lambda key: (key != "seed", key)
    ):  # others may depend on the seed
        if not same(stored.get(key), given.get(key)):
            raise InputError(
                f"{key} must be the same as when study {name} began ({_brief(stored.get(key))}), got "
                f"{_brief(given.get(key))}: choose another study.name to start a new study"
            )
    changed = changed_code(stored, given)
    if changed and not allow_code_changes:
        raise InputError(
            f"the code of {listed(changed)} must be the same as when study {name} began: undo the change, choose "
            "another study.name to start a new study, or set study.allow_code_changes=true if results stay the same"
        )


def _brief(value: Any) -> str:
    """Return a value for a message; of a sha256, its first digits."""
    text = str(value)
    return f"{text[:8]}..." if re.fullmatch(r"[0-9a-f]{64}", text) else text


def listed(names: Sequence[str]) -> str:
    """Return names for a sentence, the first of many."""
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Suppress Optuna's warnings about experimental features, which are used on purpose."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
