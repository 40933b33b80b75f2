"""Parsing of `space.params`, the ranges of other searched keys: typed YAML or Hydra's sweep syntax."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, IntervalSweep, QuotedString, RangeSweep, Sweep
from hydra.errors import HydraException
from omegaconf import OmegaConf, ValidationError

from dropsearch.config.schema import Config, arguments
from dropsearch.core.errors import InputError, close_match
from dropsearch.core.override_text import written
from dropsearch.core.records import Choice, Numbers, Range

FORMS = (
    "choice(A,B), interval(LOW,HIGH), range(LOW,HIGH[,STEP]), {choices: [A, B]} or {type: int or float, low: LOW, "
    "high: HIGH}"
)
_FUNCTIONS = ("choice", "interval", "range", "tag", "int", "float", "str", "bool", "sort", "shuffle")
_GIVEN = re.compile(r"^\+{0,2}(space\.params(?:\.[^=]+)?)=")


def with_params(words: Sequence[str]) -> list[str]:
    """Return a command line with quoted `space.params`; Hydra would otherwise start one run per value.

    ``space.params={model.width: choice(32,64)}`` becomes ``++space.params={model.width:'choice(32,64)'}``; ``++`` since
    each key below `params` is new.
    """
    return [_quoted(word, match[1]) if (match := _GIVEN.match(word)) else word for word in words]


def _quoted(argument: str, key: str) -> str:
    try:
        value: Any = OverridesParser.create().parse_override(argument).value()
        if isinstance(value, Sweep) and getattr(value, "simple_form", False):
            return argument  # A,B without a function: several runs
        return f"++{key}={_text(value)}"
    except (HydraException, ValueError) as error:
        given = argument.partition("=")[2]
        raise InputError(f'{key} must contain {FORMS}, got "{given}" ({_reason(error)})') from error


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_text(item)}" for key, item in value.items()) + "}"
    return written(str(_range_of(value))) if isinstance(value, Sweep | Glob) else written(value)


def _reason(error: Exception) -> str:
    message = " ".join(str(error).splitlines()[0].split())
    unknown = re.search(r"Unknown function '(\w+)'", message)
    return f"{message}{close_match(unknown[1], _FUNCTIONS)}" if unknown else message


def ranges(config: Config) -> dict[str, Range]:
    """Return the ranges of `space.params` by configuration key."""
    return {key: _fitting(config, key, _read(key, given)) for key, given in flat(config.space.params)}


def flat(params: Mapping[str, Any], *above: str) -> Iterator[tuple[str, Any]]:
    """Yield each range with its full key, for {model.width: ...} as well as {model: {width: ...}}."""
    for key, given in params.items():
        if isinstance(given, Mapping) and not _is_typed(given):
            yield from flat(given, *above, str(key))
        else:
            yield ".".join((*above, str(key))), given


def _read(key: str, given: Any) -> Range:
    """Return the range given as typed YAML, Hydra's syntax, a list (a choice) or, in Python, a pair."""
    try:
        return _range_of(_parsed(given))
    except (HydraException, ValueError) as error:
        raise InputError(f"space.params.{key} must be {FORMS}, got {given} ({_reason(error)})") from error


def _parsed(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    value: Any = OverridesParser.create().parse_override(f"range={given}").value()
    return value


_FIELDS = ("type", "low", "high", "log", "step", "choices")
"""The keys of a range in typed YAML."""


def _is_typed(given: Mapping[str, Any]) -> bool:
    """Return whether a mapping is a range in typed YAML rather than a mapping of names to ranges."""
    numbers = any(isinstance(given.get(end), int | float) for end in ("low", "high"))
    return numbers or isinstance(given.get("choices"), list) or given.get("type") in ("int", "float")


def _typed(given: Mapping[str, Any]) -> Range:
    """Return the range of ``{type: int, low: 16, high: 64}`` or ``{choices: [a, b]}``."""
    for name in given:
        if name not in _FIELDS:
            raise ValueError(f"its keys are {', '.join(_FIELDS)}, not {name}{close_match(str(name), _FIELDS)}")
    if "choices" in given:
        if len(given) > 1:
            raise ValueError("choices exclude other keys")
        return _choice(given["choices"])
    kind, low, high, step = (given.get(name) for name in ("type", "low", "high", "step"))
    if kind not in ("int", "float"):
        raise ValueError(f"type must be int or float, got {kind}")
    if not isinstance(given.get("log", False), bool):
        raise ValueError(f"log must be true or false, got {given['log']}")
    found = _interval(low, high, {"log"} if given.get("log") else set())
    if kind == "int":
        if not all(isinstance(number, int) or float(number).is_integer() for number in (found.low, found.high)):
            raise ValueError("a range of type int needs integers")
        found = Numbers(int(found.low), int(found.high), found.log, 1)
    else:
        found = Numbers(float(found.low), float(found.high), found.log)
    return found if step is None else _stepped(found, step)


def _stepped(found: Numbers, step: Any) -> Numbers:
    if isinstance(step, bool) or not isinstance(step, int | float) or not 0 < step <= found.high - found.low:
        raise ValueError(f"step must be a number above 0 and at most high - low, got {step}")
    if found.log:
        raise ValueError("a log scale excludes a step")
    if found.is_integer and not float(step).is_integer():
        raise ValueError("a range of type int needs integers")
    if not found.holds(found.high) or not math.isclose(
        round((found.high - found.low) / step) * step, found.high - found.low, rel_tol=1e-9
    ):
        raise ValueError("high must be low plus a multiple of step")
    return Numbers(found.low, found.high, step=int(step) if found.is_integer else float(step))


def _range_of(value: Any) -> Range:
    if isinstance(value, Mapping):
        return _typed(value)
    if isinstance(value, list | ChoiceSweep):
        return _choice(value if isinstance(value, list) else value.list)
    if isinstance(value, IntervalSweep):
        return _interval(value.start, value.end, value.tags)
    if isinstance(value, tuple) and len(value) == 2:
        return _interval(*value, set())
    if isinstance(value, RangeSweep):
        return _range(value)
    raise ValueError("it is something else")


def _choice(values: Sequence[Any]) -> Choice:
    plain = tuple(_plain(value) for value in values)
    if len(plain) < 2:
        raise ValueError("a choice needs at least two values")
    if any(value in plain[:index] for index, value in enumerate(plain)):  # 1 equals True in Python and Optuna
        raise ValueError("a choice must not repeat a value")
    return Choice(plain)


def _plain(value: Any) -> Any:
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"{value} is not a number, a word or a list of these")


def _interval(low: Any, high: Any, tags: set[str]) -> Numbers:
    if any(isinstance(end, bool) or not isinstance(end, int | float) or not math.isfinite(end) for end in (low, high)):
        raise ValueError("its ends must be finite numbers")
    if low >= high:
        raise ValueError("low must be below high")
    if tags - {"log"}:
        raise ValueError(f"the only tag is log, got {', '.join(sorted(tags))}")
    if tags and low <= 0:
        raise ValueError("a log scale needs low above 0")
    is_integer = isinstance(low, int) and isinstance(high, int)
    return Numbers(low, high, log=bool(tags), step=1 if is_integer else None)


def _range(sweep: Any) -> Numbers:
    start, stop, step = sweep.start, sweep.stop, sweep.step
    if sweep.tags:
        raise ValueError("range() takes no tag: use interval()")
    if not all(math.isfinite(number) for number in (start, stop, step)) or step <= 0:
        raise ValueError("it needs finite numbers and a step above 0")
    is_integer = all(isinstance(number, int) for number in (start, stop, step))
    first, apart = Decimal(str(start)), Decimal(str(step))
    last = first + apart * (math.ceil((Decimal(str(stop)) - first) / apart) - 1)
    if last <= first:
        raise ValueError("it must contain at least two numbers; its end is excluded")
    kind = int if is_integer else float
    return Numbers(kind(first), kind(last), step=kind(apart))


def _fitting(config: Config, key: str, found: Range) -> Range:
    """Return a range with the type of its key: an interval for an integer key contains integers only."""
    group, _, name = key.partition(".")
    of_model = group == "model"
    current = arguments(config.model).get(name) if of_model else getattr(getattr(config, group), name)
    if isinstance(found, Choice):
        return found if of_model else Choice(tuple(_converted(config, key, value) for value in found.values))
    if isinstance(current, bool | str | list):
        raise InputError(f"space.params.{key} must be choice(A,B), because the key is not a number, got {found}")
    is_whole = isinstance(current, int) and all(float(end).is_integer() for end in found.ends)
    if is_whole and not found.is_integer:
        found = Numbers(int(found.low), int(found.high), found.log, 1)
    if not of_model:
        for end in found.ends:
            _converted(config, key, end)
    return found


def _converted(config: Config, key: str, value: Any) -> Any:
    group, _, name = key.partition(".")
    typed = OmegaConf.structured(getattr(config, group))
    try:
        typed[name] = value
    except ValidationError as error:
        message = " ".join(str(error).splitlines()[0].split())
        raise InputError(f"space.params.{key} must contain values of its type: {message}") from error
    return OmegaConf.to_container(typed)[name]  # type: ignore[call-overload, index]


def applied(config: Config, values: Mapping[str, Any]) -> Config:
    """Return a copy of a configuration with new values for keys."""
    changed = copy.copy(config)
    for key, value in values.items():
        group, _, name = key.partition(".")
        setattr(changed, group, copy.copy(getattr(changed, group)))
        setattr(getattr(changed, group), name, value)
    return changed
