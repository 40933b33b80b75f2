"""Rejection of overrides that `dropsearch.search` does not support: keys of its arguments, or unused keys."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from dropsearch.config.command_line import set_keys
from dropsearch.core.errors import InputError

DECIDES: Mapping[str, tuple[str, ...]] = {
    "n_trials": ("study.n_trials",),
    "max_epochs": ("trainer.max_epochs",),
    "seed": ("seed",),
    "monitor": ("monitor",),
    "mode": ("mode",),
    "unit": ("unit",),
    "arms": ("arms",),
    "output_dir": ("output_dir",),
    "tracking": ("tracking", "tracking.name"),
    "engine": ("engine", "engine.name"),
    "accelerator": ("trainer.accelerator",),
    "confirm_top_k": ("confirm.top_k",),
    "confirm_seeds": ("confirm.seeds",),
    "name": ("model.name",),
    "tracking_uri": ("tracking.uri",),
    "batchnorm": ("batchnorm.replace",),
    "lr": ("space.lr.low", "space.lr.high"),
    "weight_decay": ("space.weight_decay.low", "space.weight_decay.high"),
    "rates": ("space.low", "space.high"),
    "sampler": ("sampler", "sampler.name"),
    "pruner": ("pruner", "pruner.name"),
    "storage": ("study.storage",),
    "warm_start": ("study.warm_start",),
    "timeout": ("study.timeout",),
    "budget": ("budget",),
    "insert": ("sites.insert",),
    "kinds": ("sites.kinds",),
}
"""The configuration keys that each argument sets; `overrides` must not contain them."""
SECTIONS: Mapping[str, str] = {
    "model": "make_module",
    "data": "datamodule",
    "space.params": "params",
    "arm_args": "arm_args",
    "sites.kinds": "kinds",
}
"""The argument that sets all keys of a section."""
UNREAD: Mapping[str, str] = {
    "task": "a call searches; the command line has tasks",
    "experiment": "pass its keys one by one",
    "hydra": "a call starts no Hydra application",
}
"""Keys and sections without effect on a call, with the reason."""


def check_overrides(overrides: Any, left_out: Collection[str], trainer: Collection[str] = ()) -> None:
    """Reject overrides of keys that arguments set, which would silently win, and overrides without effect.

    Args:
        overrides: Overrides as on the command line.
        left_out: Arguments that are not given, whose keys may be overridden.
        trainer: Names of arguments of the Trainer that are passed.

    Raises:
        InputError: An override conflicts with an argument, or `overrides` is not a list of strings.
    """
    is_list = isinstance(overrides, Sequence) and not isinstance(overrides, str)
    if not is_list or not all(isinstance(word, str) for word in overrides):
        raise InputError(f'overrides must be a list of KEY=VALUE, got {overrides!r}: for example ["sampler=random"]')
    decided = {key: argument for argument, keys in DECIDES.items() if argument not in left_out for key in keys}
    decided |= {f"trainer.{name}": "trainer" for name in trainer}
    sections = {section: argument for section, argument in SECTIONS.items() if argument not in left_out}
    found = [f"{word} ({why})" for word in overrides if (why := next(_conflicts(word, decided, sections), ""))]
    if found:
        raise InputError(
            f"overrides must not contain keys that arguments set or that a call does not use, got {', '.join(found)}"
        )


def _conflicts(word: str, decided: Mapping[str, str], sections: Mapping[str, str]) -> Iterator[str]:
    """Yield the reasons why an override must be left out."""
    for key in set_keys(word):
        if key in decided:
            yield f"use {decided[key]}=..."
        for section, argument in sections.items():
            if _is_in(key, section):
                yield f"use {argument}=..."
        for section, why in UNREAD.items():
            if _is_in(key, section):
                yield why


def _is_in(key: str, section: str) -> bool:
    return key == section or key.startswith(f"{section}.")
