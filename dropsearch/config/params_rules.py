"""What `space.params` may hold: keys that decide a trial and nothing else, with values that are legal."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dropsearch.config.params import applied, flat, ranges
from dropsearch.config.schema import Config, UserModelConfig
from dropsearch.core.errors import InputError, close_match
from dropsearch.core.records import Choice, Range
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
    ours = {key: given for key, given in found.items() if not _is_argument(config, key)}
    for values in all_tried(ours) if ours else ():
        for problem in rules(applied(config, values)):
            yield f"space.params must hold legal values only: {problem}"


def _unread(config: Config, found: Mapping[str, Range]) -> Iterator[str]:
    if isinstance(config.model, UserModelConfig):
        return  # what its optimiser reads is seen when the module is looked at
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


def _is_argument(config: Config, key: str) -> bool:
    """Say whether a key is an argument of a class of the user's own."""
    return isinstance(config.model, UserModelConfig) and key.startswith("model.")


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
    elif isinstance(config.model, UserModelConfig):
        yield from _of_user_module(config, key, group, name)
    elif not _has(config, group, name):
        known = [f"{part}.{word}" for part in ("model", "optimizer") for word in _names(getattr(config, part))]
        yield (
            f'space.params must name keys of model={config.model.name} or of optimizer, got "{key}"'
            f"{close_match(key, known)}"
        )


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


def _of_user_module(config: Config, key: str, group: str, name: str) -> Iterator[str]:
    settable = OPTIMIZER_OPTIONS
    if group == "optimizer" and key not in settable:
        yield (
            f"space.params must leave out {key}{close_match(key, settable)}, for {config.model.name} makes its own "
            f"optimiser, on which {', '.join(settable)} can be set: or name an argument of its constructor, as in "
            f"model.{name}"
        )
    setting = next((arm for arm, values in config.arm_args.items() if group == "model" and name in values), None)
    if setting is not None:
        yield f"space.params must leave out {key}, which arm_args.{setting} sets, got both"


def _has(config: Config, group: str, name: str) -> bool:
    return name in _names(getattr(config, group))


def _names(group: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(group)]
