"""Selection of this machine's GPUs."""

from __future__ import annotations

import os

from dropsearch.config.schema import Config
from dropsearch.core.errors import InputError

VISIBLE = "CUDA_VISIBLE_DEVICES"


def use_devices(config: Config) -> None:
    """Restrict CUDA to the GPUs of `engine.devices`, in this process and its children.

    Raises:
        InputError: The GPUs do not exist, or CUDA is already in use.
    """
    devices = config.engine.devices
    if devices == "auto":
        return
    before = os.environ.get(VISIBLE)
    names = before.split(",") if before else [str(index) for index in range(_gpus())]
    if config.trainer.accelerator == "cpu" or any(index >= len(names) for index in devices):
        there = f"trainer.accelerator={config.trainer.accelerator} and {len(names)} CUDA devices that torch can see"
        raise InputError(f"engine.devices must be GPUs of this machine, got {devices} with {there}: use auto")
    os.environ[VISIBLE] = ",".join(names[index] for index in devices)
    if _gpus() != len(devices):
        os.environ.pop(VISIBLE) if before is None else os.environ.update({VISIBLE: before})
        raise InputError(
            f"engine.devices must be chosen before this process uses CUDA, got {devices}: set {VISIBLE} instead"
        )


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
