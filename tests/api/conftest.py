from __future__ import annotations

from typing import Any

from tests.experiment.conftest import _tables, one_figure  # noqa: F401

LIGHT: dict[str, Any] = {
    "n_trials": 2,
    "max_epochs": 2,
    "confirm_top_k": 1,
    "confirm_seeds": 2,
    "accelerator": "cpu",
    "engine": "sequential",
    "arms": ["none", "dropout"],
    "overrides": ["evidence=off"],
}
"""Arguments of a short search."""
