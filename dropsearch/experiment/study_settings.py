"""The terms of a study: what it searches, and what must be the same for it to be continued."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dropsearch.config.params import ranges
from dropsearch.config.schema import Config
from dropsearch.core.records import Arm, Site
from dropsearch.experiment import build, user_module
from dropsearch.experiment.build import Source
from dropsearch.experiment.provenance import shown_config
from dropsearch.study.search_space import SpaceSettings


def space_settings(config: Config, source: Source) -> SpaceSettings:
    """Return the ranges of the search."""
    space: Any = config.space
    more: dict[str, Any] = {}
    if user_module.is_user_module(config):
        routes = user_module.modules(config, source, build.settings(config)).routes
        more = {"off_is_given": True, "fixed": tuple(route.setting for route in routes if not route.searched)}
    return SpaceSettings(
        rates=space.name,
        low=space.low,
        high=space.high,
        zero_share=space.zero_share,
        lr=(space.lr.low, space.lr.high),
        weight_decay=(space.weight_decay.low, space.weight_decay.high),
        hyperparameters=ranges(config),
        start=build.first_values(config, source),
        **more,
    )


def fingerprint(config: Config, source: Source, arm: Arm, found: tuple[Site, ...]) -> Mapping[str, Any]:
    """Return what must be the same for a study to be continued, by configuration key."""
    given = shown_config(config)
    parts: dict[str, Any] = {name: given[name] for name in ("model", "data", "space", "optimizer")}
    parts["data"].pop("root", None)
    parts["space"].pop("params")
    searched = {key: str(each) for key, each in ranges(config).items()}
    if user_module.is_user_module(config):
        parts["model"]["class"] = user_module.module_name(config)
        parts |= {"arm_args": given["arm_args"], "batchnorm": given["batchnorm"], "monitor": {"mode": config.mode}}
        parts["trainer"] = {name: given["trainer"][name] for name in user_module.arguments(config.trainer)}
    # Only where something is said, so that studies of before can be continued.
    parts["sites"] = {name: value for name, value in given["sites"].items() if value}
    flat = {f"{name}.{key}": value for name, values in parts.items() for key, value in values.items()}
    return {
        **flat,
        # Left out where it is empty: a study that was begun before there was such a key goes on.
        **({"space.params": searched} if searched else {}),
        "arm": arm.name,
        "engine.mask_seed": config.engine.mask_seed,
        "data": source.digest,
        "monitor": config.monitor,
        "seed": config.seed,
        "sites": [site.name for site in found],
        "trainer.gradient_clip_val": config.trainer.gradient_clip_val,
        "trainer.matmul": config.trainer.matmul,
        "trainer.max_epochs": config.trainer.max_epochs,
        "trainer.precision": config.trainer.precision,
    }
