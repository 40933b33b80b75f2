"""Lightning within a process of many tests: logged numbers stay where they are, and loaders become what they were."""

from __future__ import annotations

import inspect
import sys
from typing import Any

_PACKAGES = ("lightning.pytorch", "pytorch_lightning")
_PATCHED = ("__init__", "__setattr__", "__delattr__")


def fit_in() -> None:
    """Let Lightning leave a logged number that is on its device: it walks through all of it at each call of `log`."""
    for package in _PACKAGES:
        if result := sys.modules.get(f"{package}.trainer.connectors.logger_connector.result"):
            result._ResultMetric.to = _moved_once(result._ResultMetric.to)


def _moved_once(move: Any) -> Any:
    def to(self: Any, device: Any, **more: Any) -> Any:
        is_there = self.is_tensor and str(self.value.device) == str(device)
        return self if is_there else move(self, device, **more)

    return to


def put_back_loaders() -> None:
    """Take off what Lightning puts around loaders while it asks for them, and leaves there where that fails."""
    if loaders := sys.modules.get("torch.utils.data"):
        for kind in (loaders.DataLoader, loaders.BatchSampler):
            for name in (name for name in _PATCHED if name in vars(kind)):
                setattr(kind, name, inspect.unwrap(vars(kind)[name]))
                if f"__old{name}" in vars(kind):
                    delattr(kind, f"__old{name}")
