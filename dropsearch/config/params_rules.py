"""What `space.params` may hold: keys that decide a trial and nothing else, with values that are legal."""

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
"""What every arm searches anyway, and where its range is."""
_READ = {"adam": ("betas",), "adamw": ("betas",), "sgd": ("momentum", "nesterov")}
"""Which settings only some optimisers read."""
_CLIPPING = "trainer.gradient_clip_val"
"""The one key of the Trainer that may differ between trials."""
_SHARED = {
    "data": "all trials see the same data",
    "trainer": "all trials are trained alike",
    "seed": "each trial has its own",
}
"""What trials must not differ in, and why."""


def params_problems(config: Config, rules: Callable[[Config], Iterator[str]]) -> Iterator[str]:
    """Yield the rules that are broken, each in the words of `check`.

    Args:
        config: The configuration.
        rules: Yields what is wrong with the values of a configuration: each that is searched must be legal.
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
            yield f"space.params must hold legal values only: {problem}"


def _unread(config: Config, found: Mapping[str, Range]) -> Iterator[str]:
    if not takes_optimizer(config):
        return  # what its optimizer reads is seen when the module is looked at
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
                    f"BatchNorm alone, got {given}"
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
            f"space.params must leave out {key}, whose rates are its own: compare models by several runs, model=A,B -m"
        )
    elif group == "optimizer" and not takes_optimizer(config):
        yield from _of_its_own_optimizer(config, key, name)
    elif group == "optimizer" and not _has(config, group, name):
        known = [f"optimizer.{word}" for word in _names(config.optimizer)]
        yield f'space.params must name keys of model or of optimizer, got "{key}"{close_match(key, known)}'


def _elsewhere(key: str, group: str) -> Iterator[str]:
    last = key.rpartition(".")[2]
    searched = next((word for word in (group, last) if word in _SEARCHED_ANYWAY), "")
    if searched:
        yield f"space.params must leave out {key}, which is searched anyway: its range is {_SEARCHED_ANYWAY[searched]}"
    elif group in _SHARED:
        yield f'space.params must name keys of model or of optimizer, for {_SHARED[group]}, got "{key}"'
    else:
        name = key.partition(".")[2] or key
        yield f'space.params must name keys of model or of optimizer, got "{key}": say model.{name} or optimizer.{name}'


def _of_its_own_optimizer(config: Config, key: str, name: str) -> Iterator[str]:
    if key not in OPTIMIZER_OPTIONS:
        yield (
            f"space.params must leave out {key}{close_match(key, OPTIMIZER_OPTIONS)}, for {config.model.name} makes "
            f"its own optimizer, on which {', '.join(OPTIMIZER_OPTIONS)} can be set: or name an argument of its "
            f"constructor, as in model.{name}"
        )


def _has(config: Config, group: str, name: str) -> bool:
    return name in _names(getattr(config, group))


def _names(group: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(group)]
