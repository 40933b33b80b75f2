"""Code places that call a dropout function, which distinguish the sites of a module."""

from __future__ import annotations

import dis
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

from torch import nn

from dropsearch._compat.lightning import PREFIXES
from dropsearch._compat.python_calls import as_written, shown_call
from dropsearch.dropout.ops import is_dropout_function

Place = tuple[str, str, int | None, int | None]
"""File, qualified name of the function, line and column of a call."""

OWN: Place = ("torch", "", None, None)
"""The single place of a PyTorch class, for all branches of its code."""
INSERTED: Place = ("inserted", "", None, None)
"""The place of a dropout that `insert_dropout` inserted."""

_BETWEEN = (
    "torch.nn.functional",
    "torch.overrides",
    "torch._",
    "torch.functional",
    "dropsearch._compat.",
    "dropsearch.dropout.",
    "dropsearch.training.",
)
"""Code between a call and the control, besides other function modes."""
_INSERT = "dropsearch.dropout.tools.insert"


class Places:
    """Numbers the places of a module's class: first those in its code, in order, then all others."""

    def __init__(self, module: nn.Module) -> None:
        self._numbers = {place: number for number, place in enumerate(static_places(type(module)), 1)}

    def number(self, place: Place) -> int:
        """Return the number of a place, from 1."""
        return self._numbers.setdefault(place, len(self._numbers) + 1)


class CallReader:
    """Finds the place of the current dropout call."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[CodeType, Place]] = {}
        self._owners: dict[int, tuple[CodeType, str]] = {}
        """By identity of code: the code, so that its id is not reused, and whose it is."""

    def place(self, owner: nn.Module) -> Place:
        """Return the place of the innermost call outside PyTorch's functional code and the control."""
        frame: FrameType | None = sys._getframe(1)
        whose, owners = "between", self._owners
        while frame is not None:
            known = owners.get(id(frame.f_code)) or owners.setdefault(id(frame.f_code), (frame.f_code, _whose(frame)))
            whose = known[1]
            if whose != "between":
                break
            frame = frame.f_back
        if whose == "insert":
            return INSERTED
        if frame is not None and whose == "torch" and not type(owner).__module__.startswith("torch."):
            hidden = frame.f_locals.get("self")  # an unregistered layer, for example in a plain list
            if isinstance(hidden, nn.Module) and hidden is not owner:
                return ("hidden", str(id(hidden)), None, None)
            while frame is not None and _is_torch(frame):
                frame = frame.f_back
        if frame is None or _is_torch(frame):
            return OWN
        code, at = frame.f_code, frame.f_lasti
        found = self._known.get((id(code), at))
        if found is None:
            line, _, column, _ = next(itertools.islice(code.co_positions(), at // 2, None))
            found = self._known[id(code), at] = (code, (code.co_filename, code.co_qualname, line, column))
        return found[1]


def _whose(frame: FrameType) -> str:
    """Return whose code runs: between a call and the control, of inserted dropout, torch, or a user's (empty)."""
    name = str(frame.f_globals.get("__name__"))
    if name == _INSERT:
        return "insert"
    if name.startswith(_BETWEEN) or frame.f_code.co_name in ("__torch_function__", shown_call.__name__):
        return "between"
    return "torch" if name.startswith("torch.") else ""


def _is_torch(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith("torch.")


@cache
def static_places(kind: type) -> tuple[Place, ...]:
    """Return the places in the code of a class and its bases that call a dropout function by name, in order."""
    return tuple(dict.fromkeys(place for place, _ in _dropout_calls(kind)))


@cache
def named_functions(kind: type) -> tuple[Any, ...]:
    """Return the dropout functions that the code of a class and its bases calls by name."""
    return tuple(dict.fromkeys(function for _, function in _dropout_calls(kind)))


@cache
def names_in(kind: type) -> frozenset[str]:
    """Return the names of all attributes and globals that the code of a class and its bases uses."""
    return frozenset(
        name for function in _class_functions(kind) for code in codes_of(function) for name in code.co_names
    )


@cache
def step_names(kinds: frozenset[type]) -> frozenset[str]:
    """Return the names of attributes and globals that the code of classes reads in what may run in a step.

    What only hooks and `configure_optimizers` call does not. Functions inside of a constructor and methods that it
    hands on do, since it may register them with layers. Strings in the code count, as names for `getattr`, and so does
    a global such as `getattr` itself, unless its name is a string in the code.
    """
    in_steps, functions = _read_in_steps(kinds), functions_of(kinds)
    apart = (each for each in functions if each.__name__.startswith("configure_optimizers") or _is_hook(each.__name__))
    of_others = {name for each in apart for name in _loaded(codes_of(each))}
    callers = Counter(name for each, names in in_steps.items() for name in names - {each.__name__})
    callers.update(name for each in functions if each.__name__ in _BUILDING for name in _handed_on(each))
    bases = [base for kind in kinds for base in kind.__mro__ if base.__module__.startswith(("torch.", *PREFIXES))]
    own = {name for name in of_others if not callers[name] and not any(name in vars(base) for base in bases)}
    found = {name for each, names in in_steps.items() if each.__name__ not in own for name in names}
    return frozenset(found | {"_hparams"} if "hparams" in found else found)


def step_functions(kinds: frozenset[type]) -> frozenset[FunctionType]:
    """Return the functions of classes that may run in a step: by their names, or since such a function names them."""
    return frozenset(each for each in _read_in_steps(kinds) if each.__name__ not in _BUILDING)


@cache
def _read_in_steps(kinds: frozenset[type]) -> dict[FunctionType, set[str]]:
    """Return what the functions of classes that may run in a step read; of constructors, what functions inside do."""
    read = {each: {*_loaded(codes_of(each))} for each in functions_of(kinds)}
    found = {each: {*_kept(each)} for each in read if each.__name__ in _BUILDING}
    more = {each: names for each, names in read.items() if not _is_apart(each.__name__)}
    while more:
        found |= more
        called = {name for names in found.values() for name in names}
        more = {each: names for each, names in read.items() if each not in found and each.__name__ in called}
    return found


def _is_apart(name: str) -> bool:
    """Return whether functions of a name run outside of steps, unless a step calls them, such as `predict_noise`."""
    return _is_hook(name) or name.startswith(_APART)


def _is_hook(name: str) -> bool:
    """Return whether a function is a hook outside of steps; those that change a batch on its way are parts of steps."""
    return name.startswith("on_") and not name.endswith("_batch_transfer")


_APART = (
    "__init__",
    "configure_",
    "setup",
    "teardown",
    "train_dataloader",
    "val_dataloader",
    "test_",
    "predict_",
)
_BUILDING = ("__init__", "setup", "configure_model")
_AT_ONCE = ("<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")


@cache
def functions_of(kinds: frozenset[type]) -> frozenset[FunctionType]:
    """Return the functions of classes, and the users' functions that these name."""
    methods = {each for kind in kinds for each in _class_functions(kind)}
    reached = {each for kind in kinds for each in reached_functions(kind)}
    return frozenset(methods | {each for each in reached if isinstance(each, FunctionType) and _is_users(each)})


def codes_of(function: FunctionType) -> Iterator[CodeType]:
    """Yield the code of a function as it is written, and those of its inner functions."""
    waiting = [as_written(function).__code__]
    while waiting:
        yield (code := waiting.pop(0))
        waiting[:0] = [inner for inner in code.co_consts if isinstance(inner, CodeType)]


def _kept(function: FunctionType) -> Iterator[str]:
    """Yield the names that the functions inside of a function read, which may run after it."""
    return _loaded(code for code in [*codes_of(function)][1:] if code.co_name not in _AT_ONCE)


def _handed_on(function: FunctionType) -> Iterator[str]:
    """Yield the attributes that a function takes without calling them."""
    for each in dis.get_instructions(as_written(function).__code__):
        if each.opname == "LOAD_ATTR" and "NULL|self" not in each.argrepr:
            yield each.argval


def _loaded(codes: Iterable[CodeType]) -> Iterator[str]:
    for code in codes:
        found = list(dis.get_instructions(code))
        for at, each in enumerate(found, 1):
            is_constant = each.argval == "getattr" and _names_a_constant(found[at:])
            if each.opname in ("LOAD_ATTR", "LOAD_METHOD", "LOAD_GLOBAL") and not is_constant:
                yield each.argval
        for held in code.co_consts:
            yield from (each for each in (held if isinstance(held, tuple) else [held]) if isinstance(each, str))


def _names_a_constant(following: list[dis.Instruction]) -> bool:
    """Return whether `getattr` gets an object and a string: a variable, attributes of it and a string are loaded."""
    if not following or following[0].opname not in ("LOAD_FAST", "LOAD_DEREF", "LOAD_GLOBAL", "LOAD_FAST_BORROW"):
        return False
    name, *then = itertools.dropwhile(lambda each: each.opname == "LOAD_ATTR", following[1:])
    calls = [each for each in then[:2] if each.opname in ("CALL", "PRECALL") and each.argval in (2, 3)]
    is_alone = bool(calls) and then[0].opname in ("CALL", "PRECALL", "LOAD_CONST", "LOAD_FAST")  # no part of a string
    return name.opname == "LOAD_CONST" and isinstance(name.argval, str) and is_alone


def forget_classes() -> None:
    """Clear the caches of classes after a new operation is registered."""
    for known in (static_places, named_functions, names_in, reached_functions):
        known.cache_clear()


def _dropout_calls(kind: type) -> Iterator[tuple[Place, Any]]:
    for function in _class_functions(kind):
        for place, held in _named(function):
            if isinstance(held, Callable) and is_dropout_function(held):
                yield place, held


def _class_functions(kind: type) -> Iterator[FunctionType]:
    if kind.__module__.startswith("torch."):
        return
    for owner in kind.__mro__:
        if not owner.__module__.startswith(("torch.", *PREFIXES)):
            yield from _functions(owner)


def _functions(owner: type) -> list[FunctionType]:
    own = (getattr(value, "fget", getattr(value, "func", value)) for value in vars(owner).values())  # of properties
    values = (getattr(value, "__func__", value) for value in own)
    unwrapped = (getattr(value, "__wrapped__", value) for value in values)
    functions = [value for value in unwrapped if isinstance(value, FunctionType)]
    return sorted(functions, key=lambda function: as_written(function).__code__.co_firstlineno)


def _named(function: FunctionType) -> Iterator[tuple[Place, Any]]:
    """Yield each place in a function and its inner functions that names a global or a member of a Python module."""
    for code in codes_of(function):
        held: Any = None
        for instruction in dis.get_instructions(code):
            if instruction.opname == "LOAD_GLOBAL":
                held = function.__globals__.get(instruction.argval)
            elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD") and isinstance(held, ModuleType):
                held = getattr(held, str(instruction.argval), None)
            elif instruction.opname not in ("CACHE", "PUSH_NULL", "PRECALL"):
                held = None
            at = instruction.positions
            if at is not None and held is not None and not isinstance(held, ModuleType):
                yield (code.co_filename, code.co_qualname, at.lineno, at.col_offset), held
                held = None


@cache
def reached_functions(kind: type) -> frozenset[Any]:
    """Return the functions that the code of a class names, and that plain functions which it names do in turn.

    Code of Python's and PyTorch's modules is not followed.
    """
    found: set[Any] = set()
    waiting = list(_class_functions(kind))
    while waiting:
        function = waiting.pop()
        for _, held in _named(function):
            with suppress(TypeError):  # not hashable
                if held not in found and isinstance(held, Callable):
                    found.add(held)
                    waiting += [held] if isinstance(held, FunctionType) and _is_users(held) else []
    return frozenset(found)


def _is_users(function: FunctionType) -> bool:
    name = str(function.__module__).partition(".")[0]
    return name not in ("torch", "lightning", "pytorch_lightning", "dropsearch") and name not in sys.stdlib_module_names
