from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest
from lightning.pytorch import Trainer

from dropsearch._compat.lightning import entry_points_once


def test_entry_points_are_read_once_and_only_within(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.fabric.utilities import registry

    from dropsearch._compat import lightning

    read: list[dict[str, Any]] = []

    def entry_points(**given: Any) -> metadata.EntryPoints:
        read.append(given)
        return metadata.EntryPoints()

    monkeypatch.setattr(registry, "entry_points", entry_points)
    monkeypatch.setattr(lightning, "_read", lightning.functools.cache(entry_points))
    options = {"logger": False, "enable_checkpointing": False, "accelerator": "cpu", "barebones": True}
    with entry_points_once("lightning.pytorch"):
        Trainer(**options)
        Trainer(**options)
    assert read == [{"group": "lightning.pytorch.callbacks_factory"}]
    Trainer(**options)
    assert len(read) == 2
