"""Constraints on configuration fields and constructor arguments, declared next to them."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dropsearch.core.errors import close_match

_CONSTRAINT = "constraint"
_KINDS: Mapping[str, str] = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "a string"}


@dataclass(frozen=True)
class Constraint:
    """A constraint on a value; None always satisfies it."""

    kind: Literal["int", "float", "bool", "str", ""] = ""
    """The type of the value; empty for any."""
    one_of: tuple[str, ...] = ()
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    odd: bool = False
    multiple_of: str = ""
    """Name of another argument that must divide this one; see `argument_problems`."""
    most_items: int | None = None
    """If given, the value is a list of at most this many items, each of which satisfies the other constraints."""

    def problems(self, key: str, value: Any) -> Iterator[str]:
        """Yield a message for each violation by the value of a key."""
        if self.most_items is None:
            yield from self._single(key, value)
        elif not isinstance(value, list | tuple):
            yield f"{key} must be a list, got {value}"
        elif len(value) > self.most_items:
            yield f"{key} must be a list of at most {self.most_items} items, got {len(value)}"
        else:
            for index, item in enumerate(value):
                yield from self._single(f"{key}[{index}]", item)

    def _single(self, key: str, value: Any) -> Iterator[str]:
        if self.kind and not _is_kind(self.kind, value):
            yield f"{key} must be {_KINDS[self.kind]}, got {value}"
            return
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{key} must be a finite number, got {value}"
        rules: tuple[tuple[str, float | None, Callable[[Any, float], bool]], ...] = (
            ("at least", self.at_least, lambda value, limit: value >= limit),
            ("above", self.above, lambda value, limit: value > limit),
            ("at most", self.at_most, lambda value, limit: value <= limit),
            ("below", self.below, lambda value, limit: value < limit),
        )
        for words, limit, holds in rules:
            if limit is not None and not holds(value, limit):
                yield f"{key} must be {words} {limit}, got {value}"
        if self.odd and value % 2 == 0:
            yield f"{key} must be odd, got {value}"
        if self.one_of and value not in self.one_of:
            yield f'{key} must be one of {", ".join(self.one_of)}, got "{value}"{close_match(str(value), self.one_of)}'


def _is_kind(kind: str, value: Any) -> bool:
    if kind == "bool" or isinstance(value, bool):
        return kind == "bool" and isinstance(value, bool)
    return isinstance(value, {"int": int, "float": int | float, "str": str}[kind])


def checked(default: Any, constraint: Constraint) -> Any:
    """Return a dataclass field with a constraint; a tuple as default becomes a list."""
    metadata = {_CONSTRAINT: constraint}
    if isinstance(default, tuple):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def field_constraint(each: dataclasses.Field[Any]) -> Constraint | None:
    """Return the constraint of a dataclass field, None without one."""
    return each.metadata.get(_CONSTRAINT)


def field_problems(config: Any, prefix: str = "") -> Iterator[str]:
    """Yield a message for each violation in a configuration dataclass, including nested groups."""
    for each in dataclasses.fields(config):
        value, key = getattr(config, each.name), f"{prefix}{each.name}"
        if dataclasses.is_dataclass(value):
            yield from field_problems(value, f"{key}.")
        elif value is not None and (constraint := field_constraint(each)):
            yield from constraint.problems(key, value)


def argument_problems(function: Callable[..., Any], given: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield a message for each argument that violates a constraint of a function or class.

    Constraints are declared in annotations: ``kernel_size: Annotated[int, Constraint("int", odd=True)]``.
    """
    for name, constraints in argument_constraints(function).items():
        if given.get(name) is not None:
            for constraint in constraints:
                problems = [*constraint.problems(f"{prefix}{name}", given[name])]
                yield from problems or _multiple(constraint.multiple_of, name, given, prefix)


def _multiple(other: str, name: str, given: Mapping[str, Any], prefix: str) -> Iterator[str]:
    value, divisor = given[name], given.get(other)
    if _is_kind("int", value) and _is_kind("int", divisor) and divisor and value % divisor:
        yield f"{prefix}{name} must be a multiple of {prefix}{other}, got {value} and {divisor}"


def argument_constraints(function: Callable[..., Any]) -> dict[str, list[Constraint]]:
    """Return the constraints of a callable's arguments by name, in the order of their declaration."""
    annotated = argument_annotations(function).items()
    return {
        name: [each for each in getattr(annotation, "__metadata__", ()) if isinstance(each, Constraint)]
        for name, annotation in annotated
    }


def argument_annotations(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a callable's arguments by name; an empty dict if they cannot be evaluated."""
    try:
        parameters = inspect.signature(function, eval_str=True).parameters.values()
    except Exception:  # user code may contain any annotation
        return {}
    return {parameter.name: parameter.annotation for parameter in parameters}
