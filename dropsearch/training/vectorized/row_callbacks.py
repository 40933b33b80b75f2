"""Callbacks that touch nothing but a trial's weights: averages of weights, of which each row has its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from dropsearch.training.trainers import as_list, is_kind
from dropsearch.training.vectorized.trial_row import TrialRow

KINDS = ("WeightAveraging",)
"""Lightning's callbacks that rows honour, with the classes that inherit from them (such as `EMAWeightAveraging`)."""


def is_of_rows(callback: Any) -> bool:
    """Return whether each row can have a callback of its own like this one."""
    return any(is_kind(callback, kind) for kind in KINDS)


class RowCallbacks:
    """Runs the hooks of callbacks, for each row with its own module, Trainer and callbacks.

    Args:
        arguments: Returns the user's Trainer arguments, with new callbacks each time.
    """

    def __init__(self, arguments: Callable[[], Mapping[str, Any]]) -> None:
        self._arguments = arguments
        self._of: dict[int, tuple[TrialRow, list[Any]]] = {}

    def attach(self, trial_row: TrialRow) -> list[Any]:
        """Make the callbacks of a row, and return them."""
        alive = {key: kept for key, kept in self._of.items() if not kept[0].is_idle}
        own = as_list(self._arguments().get("callbacks"))
        self._of = {**alive, id(trial_row): (trial_row, own)}
        return own

    def of(self, trial_row: TrialRow) -> list[Any]:
        """Return the callbacks of a row; a copy of it has none."""
        kept = self._of.get(id(trial_row))
        return kept[1] if kept is not None and kept[0] is trial_row else []

    @torch.no_grad()
    def run(self, trial_row: TrialRow, hook: str, *args: Any) -> None:
        """Run a hook of a row's callbacks."""
        with trial_row.raising_alone():
            for callback in self.of(trial_row):
                getattr(callback, hook)(trial_row.view, trial_row.module, *args)
