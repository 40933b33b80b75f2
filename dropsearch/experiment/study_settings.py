"""Settings that must not change when a study continues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dropsearch.config.schema import arguments
from dropsearch.core.records import Arm
from dropsearch.experiment.context import ExperimentContext
from dropsearch.experiment.provenance import shown_config


def fingerprint(context: ExperimentContext, arm: Arm) -> Mapping[str, Any]:
    """Return the settings that must not change when a study continues, by configuration key."""
    config = context.config
    given = shown_config(config)
    parts: dict[str, Any] = {name: given[name] for name in ("model", "data", "space", "optimizer")}
    parts["data"].pop("root", None)
    parts["space"].pop("params")
    parts["model"]["class"] = context.modules.class_name
    parts |= {name: given[name] for name in ("arm_args", "batchnorm", "sites")}
    parts["trainer"] = {name: given["trainer"][name] for name in arguments(config.trainer)}
    flat = {f"{name}.{key}": value for name, values in parts.items() for key, value in values.items()}
    return {
        **flat,
        "space.params": {key: str(each) for key, each in context.params.items()},
        "arm": arm.name,
        "confirm.split": "drawn by seed" if context.source.redraws_split else "given by the data",
        "engine.mask_seed": config.engine.mask_seed,
        "engine.batch_seed": config.engine.batch_seed,
        "data": context.source.digest,
        "monitor": config.monitor,
        "monitor.mode": config.mode,
        "seed": config.seed,
        "study.warm_start": given["study"]["warm_start"],
        "sites": [site.name for site in context.sites],
        "trainer.gradient_clip_val": config.trainer.gradient_clip_val,
        "trainer.matmul": config.trainer.matmul,
        "trainer.max_epochs": config.trainer.max_epochs,
        "trainer.precision": config.trainer.precision,
    }
