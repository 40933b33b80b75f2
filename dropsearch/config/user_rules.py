"""What a configuration with a module or data of the user's own must satisfy, and one without them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dropsearch.config.schema import Config, UserDataConfig, UserModelConfig, arguments
from dropsearch.core.errors import close_match
from dropsearch.core.records import ARMS, Monitor

_REFUSED = {
    "fast_dev_run": "it trains nothing",
    "check_val_every_n_epoch": "every epoch is validated",
    "limit_val_batches": "every epoch is validated",
    "barebones": "it logs nothing",
    "max_steps": "trials train for trainer.max_epochs",
    "devices": "a trial trains on one device",
    "num_nodes": "a trial trains on one device",
    "gradient_clip": "trainer.gradient_clip_val says it for every engine",
}
"""Arguments of the Trainer that would break what a trial is, and why."""


def user_problems(config: Config) -> Iterator[str]:
    """Yield the rules that are broken, each in the words of `check`."""
    own = isinstance(config.model, UserModelConfig)
    if isinstance(config.data, UserDataConfig) and not own:
        yield (
            f"model._target_ must name a module of your own where data._target_ does, got model={config.model.name}, "
            "which is built for the catalogue's data"
        )
    if not config.monitor.strip():
        yield "monitor must name a metric that the module logs, got an empty one"
    yield from _user_module(config) if own else _built_in(config)


def _built_in(config: Config) -> Iterator[str]:
    if not Monitor(config.monitor, config.mode).is_val_loss:  # type: ignore[arg-type]
        key, value = ("monitor", config.monitor) if config.monitor != "val_loss" else ("mode", config.mode)
        wanted = "val_loss" if key == "monitor" else "min"
        yield f"{key} must be {wanted} with the models of dropsearch, got {value}: give a module of your own"
    if config.arm_args:
        yield "arm_args must be empty with the models of dropsearch, which know BatchNorm, got " + ", ".join(
            config.arm_args
        )
    if config.batchnorm.replace:
        yield f"batchnorm.replace must be null with the models of dropsearch, got {config.batchnorm.replace}"
    if config.sites.insert is not None:
        yield (
            f"sites.insert must be null with the models of dropsearch, which have dropout of their own, got "
            f"{config.sites.insert}"
        )


def _user_module(config: Config) -> Iterator[str]:
    for arm, values in config.arm_args.items():
        if arm not in ARMS:
            yield f'arm_args must be of {", ".join(ARMS)}, got "{arm}"{close_match(arm, ARMS)}'
        elif not isinstance(values, dict) or not values:
            yield f"arm_args.{arm} must be arguments of {config.model.name}, as in {{norm: batch}}, got {values}"
    for arm in config.arms:
        if isinstance(arm, str) and arm in ARMS and ARMS[arm].batchnorm and not _has_batchnorm(config, arm):
            yield (
                f"arms must not name {arm} for a module of your own without saying how it gets BatchNorm, got "
                f"{', '.join(config.arms)}: give arm_args={{{arm}: {{ARGUMENT: VALUE}}}}, or batchnorm.replace=identity"
                " where the module has BatchNorm that the other arms are to lose"
            )
    yield from _insertion(config.sites.insert)
    for name in arguments(config.trainer):
        if name in _REFUSED:
            yield f"trainer.{name} must be left out: {_REFUSED[name]}"


def _insertion(given: Any) -> Iterator[str]:
    listed = given if isinstance(given, list) else [given]
    if given is not None and not (listed and all(isinstance(each, str) and each for each in listed)):
        yield (
            "sites.insert must be after_activation, a name, a pattern or a type of parts of the module, or a list of "
            f"these, got {given!r}: as in sites.insert=[encoder.*.relu] or sites.insert=[torch.nn.ReLU]"
        )


def _has_batchnorm(config: Config, arm: str) -> bool:
    return bool(config.batchnorm.replace or config.arm_args.get(arm))
