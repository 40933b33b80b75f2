"""Attributes that a step or a hook sets and that later steps read: each row's own, loaded for a step of all rows.

Lists to which steps append stay outside of the steps, behind stand-ins, as long as no step reads them.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from dropsearch.core.batches import combined, leaves, replaced, same
from dropsearch.core.contents import CHANGEABLE, tensors_kept
from dropsearch.core.errors import UnsupportedError
from dropsearch.dropout.places import step_names
from dropsearch.training.vectorized.by_row import RowsDifferError
from dropsearch.training.vectorized.row_trainer import RATES, StepTrainer, rates_of
from dropsearch.training.vectorized.shared_state import FirstValues
from dropsearch.training.vectorized.step_traits import Attribute, NotLoadedError, Path, StepTraits
from dropsearch.training.vectorized.watched_parts import (
    assign,
    attributes,
    part_at,
    place_of,
    remove,
    shown,
    unsupported,
    watched_parts,
)

_ABSENT = object()


class _Differing:
    """Placeholder for a number or tensor that differs between rows."""

    def __init__(self, values: Sequence[Any]) -> None:
        self.values = values


class CarriedAttributes:
    """Loads attributes of the rows' modules into the module that runs their steps.

    Args:
        skeleton: The module that runs the steps.
        traits: What steps change and read; lists to which they append are not loaded before a step reads them.
    """

    def __init__(self, skeleton: nn.Module, traits: StepTraits) -> None:
        self._skeleton, self._traits = skeleton, traits
        parts = watched_parts(skeleton)
        self._read, self._first = step_names(frozenset(map(type, parts.values()))), FirstValues(parts)
        self._loaded: set[Attribute] = {RATES} if traits.reads_rates else set()
        """What is loaded since a step has read it."""
        self._values: dict[Attribute, Any] = {}

    def load(self, attribute: Attribute) -> None:
        """Load a list to which steps append, or `RATES`, from now on."""
        self._loaded.add(attribute)

    def of(self, modules: Sequence[Any]) -> dict[str, Tensor]:
        """Return the tensors of the changed attributes of some rows, `[rows, ...]` each.

        Raises:
            RowsDifferError: Values that are no numbers differ between the rows.
            UnsupportedError: Trials share an object that changes.
        """
        self._values = {}
        if modules and RATES in self._loaded:
            self._values[RATES] = _combined([rates_of(module.trainer) for module in modules])
        for path, name in self._traits.carried if modules else ():
            parts = [part_at(module, path) for module in modules]
            own = part_at(self._skeleton, path)
            if own is None or any(part is None for part in parts):
                continue  # an object that a hook has put in the place of another, which is loaded as a whole
            values = [attributes(part).get(name, _ABSENT) for part in parts]
            if name not in self._read and COMPUTED.isdisjoint(self._read):
                continue
            self._require_own(own, parts, values, path, name)
            is_appended = (path, name) in self._traits.attributes and (path, name) not in self._loaded
            if is_appended and type(values[0]) in OUTPUTS:  # a class of a user has methods of its own
                self._values[path, name] = stand_in(values[0], (path, name))
                continue
            try:
                self._values[path, name] = _combined(values)
            except RecursionError as error:
                message = "a step or a hook changes {}, which holds itself"
                raise unsupported(self._skeleton, (path, name), message) from error
        found = [leaf for leaf in leaves([*self._values.values()]) if isinstance(leaf, _Differing)]
        device = next((each.device for each in self._skeleton.parameters()), None) if found else None
        return {str(id(part)): torch.stack([_tensor(each, device) for each in part.values]) for part in found}

    def _require_own(self, own: Any, parts: Sequence[Any], values: Sequence[Any], path: Path, name: str) -> None:
        """Raise an error if rows share the object that has an attribute, or a container that it holds."""
        held = attributes(own).get(name, _ABSENT)
        is_shared = len(path) > 1 and any(part is own for part in parts)
        is_shared_value = isinstance(held, CHANGEABLE) and any(value is held for value in values)
        if held is not _ABSENT and (is_shared or is_shared_value) and not self._first.has((path, name), held):
            where = shown(path) if is_shared else shown(path, name)
            place = place_of(self._skeleton, path, name)
            raise UnsupportedError(f"a step or a hook changes {where}, which all trials share{place}")

    @contextmanager
    def shown(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Give the skeleton the attributes of the rows; `tensors` are those of `of`, inside of `vmap`."""
        stepping = vars(self._skeleton).get("_trainer")
        rates = stepping.rates if isinstance(stepping, StepTrainer) else None
        own = {attribute: value for attribute, value in self._values.items() if attribute != RATES}
        parts = {path: part_at(self._skeleton, path) for path, _ in own}
        before = {(path, name): attributes(parts[path]).get(name, _ABSENT) for path, name in own}
        filled = lambda value: tensors[str(id(value))] if isinstance(value, _Differing) else value  # noqa: E731
        try:
            for (path, name), value in own.items():
                _set(parts[path], name, value if is_stand_in(value) else replaced(value, filled))
            if isinstance(stepping, StepTrainer):  # else it has no rates
                stepping.rates = replaced(self._values.get(RATES), filled)
            yield
        finally:
            for (path, name), value in before.items():
                _set(parts[path], name, value)
            if isinstance(stepping, StepTrainer):
                stepping.rates = rates

    @contextmanager
    def as_first(self, modules: Sequence[nn.Module]) -> Iterator[None]:
        """Give the skeleton the state of the first of some rows, for a step of it alone; restore it at the end."""
        with tensors_kept(self._skeleton.state_dict().values()):
            if modules:
                self._skeleton.load_state_dict(modules[0].state_dict())
            own = {name: value[0] for name, value in self.of(modules[:1]).items()}
            with self.shown(own) if modules else nullcontext(), self.guarded():
                yield

    def guarded(self) -> AbstractContextManager[None]:
        """Raise `NotLoadedError` where code of the module reads a list that is not loaded."""
        held_back = [value for value in self._values.values() if is_stand_in(value)]
        return armed(held_back) if held_back else nullcontext()


COMPUTED = frozenset({"getattr", "vars", "__dict__", "attrgetter", "eval", "exec"})
"""Names of what reads attributes by names that code computes."""


def _tensor(value: Any, device: torch.device | None) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64, device=device)


def _set(part: Any, name: str, value: Any) -> None:
    if value is _ABSENT:
        remove(part, name)
    else:
        assign(part, name, value)


def _combined(values: Sequence[Any]) -> Any:
    """Return a value of all rows, with placeholders where numbers or tensors differ."""
    _require_equal([type(value).__name__ for value in values])
    try:
        return combined(values, _of_rows)
    except ValueError as error:  # containers of different lengths or keys
        raise RowsDifferError([repr(value) for value in values]) from error


def _of_rows(leaf: list[Any]) -> Any:
    _require_equal([(type(each).__name__, tuple(each.shape) if isinstance(each, Tensor) else ()) for each in leaf])
    if isinstance(leaf[0], Tensor):
        return _Differing(leaf)
    alike = [next(row for row, other in enumerate(leaf) if same(each, other)) for each in leaf]
    if isinstance(leaf[0], float) and any(alike):
        return _Differing(leaf)
    _require_equal(alike)
    return set(leaf[0]) if type(leaf[0]) is set else leaf[0]


def _require_equal(values: list[Any]) -> None:
    if any(value != values[0] for value in values):
        raise RowsDifferError(values)


OUTPUTS = (list, collections.deque)
"""Containers to which steps append what a hook reads. Sets are loaded, since Python reads a set past its methods."""


class _Hidden:
    """An item in place of those that the row's own container holds."""


class _Guarded:
    """What the stand-ins of lists and deques have in common: while user code runs, reading them raises."""

    attribute: Attribute
    is_armed = False


def _guarded(kind: type, name: str) -> Callable[..., Any]:
    original = getattr(kind, name)

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.is_armed:
            raise NotLoadedError(self.attribute)
        return original(self, *args, **kwargs)

    return method


def _read_beside(self: Any, *_: Any) -> Any:
    """Raise where another list is added in front of a stand-in, or NumPy reads it; else do as without this method."""
    if self.is_armed:
        raise NotLoadedError(self.attribute)
    return NotImplemented


_APPENDING = {"append", "extend", "__iadd__"}
_READING = {
    "__contains__", "__delitem__", "__eq__", "__getitem__", "__iter__", "__len__", "__reversed__", "__setitem__",
    "__add__", "__mul__", "__rmul__", "__imul__", "__lt__", "__le__", "__gt__", "__ge__", "__repr__", "__copy__",
}  # fmt: skip
_BESIDE = {"__hash__": None, "__radd__": _read_beside, "__array__": _read_beside}


def _stand_in(kind: type) -> type:
    reading = [name for name in dir(kind) if name in _READING or not name.startswith("_")]
    methods = {
        name: _guarded(kind, name) for name in reading if name not in _APPENDING and callable(getattr(kind, name))
    }
    return type(f"Filled{kind.__name__.title()}", (_Guarded, kind), methods | _BESIDE)


_STAND_INS = {kind: _stand_in(kind) for kind in OUTPUTS}
_NAMES = tuple(kind.__name__ for kind in _STAND_INS.values())


def stand_in(value: Any, attribute: Attribute) -> Any:
    """Return what a step sees of a row's container of `OUTPUTS` to which it only appends."""
    made = _STAND_INS[type(value)]([_Hidden()])
    made.attribute = attribute
    return made


def is_stand_in(value: Any) -> bool:
    """Return whether a value is what `stand_in` returned."""
    return isinstance(value, _Guarded)


@contextmanager
def armed(values: Iterable[Any]) -> Iterator[None]:
    """Let stand-ins raise `NotLoadedError` where code reads them in this context."""
    found = list(values)
    for each in found:
        each.is_armed = True
    try:
        yield
    except TypeError as error:  # of PyTorch and NumPy, which read a list past its methods
        if not any(name in str(error) for name in (_Hidden.__name__, *_NAMES)):
            raise
        raise NotLoadedError(found[0].attribute) from error
    finally:
        for each in found:
            each.is_armed = False
