"""Validation of `space.params`: allowed keys and legal values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dropsearch.config.params import applied, flat, ranges
from dropsearch.config.schema import Config, takes_optimizer
from dropsearch.core.errors import InputError, close_match
from dropsearch.core.records import ARMS, Choice, Range
from dropsearch.core.records.ranges import all_tried
from dropsearch.core.records.trials import OPTIMIZER_OPTIONS

_SEARCHED_ANYWAY = {
    "lr": "space.lr.low and space.lr.high",
    "learning_rate": "space.lr.low and space.lr.high",
    "weight_decay": "space.weight_decay.low and space.weight_decay.high",
    "rate": "space.low and space.high",
    "rates": "space.low and space.high",
    "dropout": "space.low and space.high",
}
"""Parameters that every arm searches anyway, and the keys of their ranges."""
_READ = {"adam": ("betas",), "adamw": ("betas",), "sgd": ("momentum", "nesterov")}
"""Settings that only some optimizers read."""
_CLIPPING = "trainer.gradient_clip_val"
"""The only Trainer key that may differ between trials."""
_SHARED = {
    "data": "all trials see the same data",
    "trainer": "all trials train with the same Trainer settings",
    "seed": "each trial has its own seed",
}
"""Sections in which trials must not differ, with the reason."""


def params_problems(config: Config, rules: Callable[[Config], Iterator[str]]) -> Iterator[str]:
    """Yield a message for each violation.

    Args:
        rules: Yields the violations of a configuration; it is called with each searched value.
    """
    for key, _ in flat(config.space.params):
        yield from _key(config, key)
    try:
        found = ranges(config)
    except InputError as error:
        yield str(error)
        return
    yield from _unread(config, found)
    yield from _of_arms(config, found)
    for values in all_tried(found) if found else ():
        for problem in rules(applied(config, values)):
            yield f"space.params must contain legal values only: {problem}"


def _unread(config: Config, found: Mapping[str, Range]) -> Iterator[str]:
    if not takes_optimizer(config):
        return  # the options of its optimizer are known once the module is built
    chosen = found.get("optimizer.name")
    optimizers = chosen.ends if isinstance(chosen, Choice) else (config.optimizer.name,)
    read = {name for optimizer in optimizers for name in _READ.get(str(optimizer), ())}
    for name in sorted({name for names in _READ.values() for name in names} - read):
        if f"optimizer.{name}" in found:
            reading = [optimizer for optimizer, names in _READ.items() if name in names]
            yield (
                f"space.params must leave out optimizer.{name}, which optimizer={optimizers[0]} does not read: choose "
                f"optimizer={' or '.join(reading)}"
            )


def _of_arms(config: Config, found: Mapping[str, Range]) -> Iterator[str]:
    for arm, values in config.arm_args.items():
        for name, value in values.items() if isinstance(values, dict) else ():
            if arm in ARMS and ARMS[arm].batchnorm and (given := found.get(f"model.{name}")) and given.holds(value):
                yield (
                    f"space.params.model.{name} must leave out {value}, which arm_args.{arm} gives to the arms with "
                    f"BatchNorm only, got {given}"
                )


def _key(config: Config, key: str) -> Iterator[str]:
    group, _, name = key.partition(".")
    if key == _CLIPPING:
        return
    if group not in ("model", "optimizer") or not name:
        yield from _elsewhere(key, group)
    elif name in _SEARCHED_ANYWAY and not _has(config, group, name):
        yield f"space.params must leave out {key}, which is searched anyway: its range is {_SEARCHED_ANYWAY[name]}"
    elif group == "model" and name in ("name", "_target_"):
        yield (
            f"space.params must leave out {key}, since models differ in their sites: compare models in several runs, "
            "-m model=A,B"
        )
    elif group == "optimizer" and not takes_optimizer(config):
        yield from _of_its_own_optimizer(config, key, name)
    elif group == "optimizer" and not _has(config, group, name):
        known = [f"optimizer.{word}" for word in _names(config.optimizer)]
        yield f'space.params must name keys of model or optimizer, got "{key}"{close_match(key, known)}'


def _elsewhere(key: str, group: str) -> Iterator[str]:
    last = key.rpartition(".")[2]
    searched = next((word for word in (group, last) if word in _SEARCHED_ANYWAY), "")
    if searched:
        yield f"space.params must leave out {key}, which is searched anyway: its range is {_SEARCHED_ANYWAY[searched]}"
    elif group in _SHARED:
        yield f'space.params must name keys of model or optimizer, because {_SHARED[group]}, got "{key}"'
    else:
        name = key.partition(".")[2] or key
        yield f'space.params must name keys of model or optimizer, got "{key}": use model.{name} or optimizer.{name}'


def _of_its_own_optimizer(config: Config, key: str, name: str) -> Iterator[str]:
    if key not in OPTIMIZER_OPTIONS:
        yield (
            f"space.params must leave out {key}{close_match(key, OPTIMIZER_OPTIONS)}, as {config.model.name} makes "
            f"its own optimizer, on which {', '.join(OPTIMIZER_OPTIONS)} can be set: or name an argument of its "
            f"constructor, such as model.{name}"
        )


def _has(config: Config, group: str, name: str) -> bool:
    return name in _names(getattr(config, group))


def _names(group: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(group)]
