"""Arguments of the Trainer that rows honour, and why others make trials train sequentially."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from lightning import Trainer

from dropsearch.core.user_errors import place_of_class
from dropsearch.training.trainers import as_list, is_kind
from dropsearch.training.vectorized.trial_row import TrialRow


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _anything(_: Any) -> bool:
    return True


def _all_batches(value: Any) -> bool:
    return isinstance(value, float) and value == 1.0


def _nothing(value: Any) -> bool:
    return not value


_HONOURED: Mapping[str, Callable[[Any], bool]] = {
    "accumulate_grad_batches": _is_count,
    "gradient_clip_val": lambda value: isinstance(value, int | float) and value >= 0,
    "gradient_clip_algorithm": lambda value: value in ("norm", "value"),
    "logger": _nothing,
    "enable_checkpointing": _nothing,
    "enable_progress_bar": _anything,
    "enable_model_summary": _anything,
    "log_every_n_steps": _anything,
    "num_sanity_val_steps": _nothing,
    "inference_mode": _anything,
    "limit_train_batches": _all_batches,
    "limit_val_batches": _all_batches,
    "limit_test_batches": _anything,
}
"""By name: the values that rows honour, or that change no number of a trial."""


def not_of_rows(arguments: Mapping[str, Any]) -> Iterator[str]:
    """Yield why trials with these arguments of the Trainer train sequentially; nothing if rows honour them all."""
    defaults = {name: each.default for name, each in inspect.signature(Trainer).parameters.items()}
    for name, value in sorted(arguments.items()):
        if name == "callbacks":
            kinds = dict.fromkeys(type(each) for each in as_list(value) if not is_of_rows(each))
            for kind in kinds:
                yield f"the callback {kind.__name__} works with sequential training only{place_of_class(kind)}"
            continue
        is_default = name in defaults and value is defaults[name]
        if not is_default and not (name in _HONOURED and _HONOURED[name](value)):
            yield f"trainer.{name} works with sequential training only"


KINDS = ("WeightAveraging",)
"""Lightning's callbacks that rows honour, with the classes that inherit from them (such as `EMAWeightAveraging`)."""


def is_of_rows(callback: Any) -> bool:
    """Return whether each row can have a callback of its own like this one."""
    return any(is_kind(callback, kind) for kind in KINDS)


class RowCallbacks:
    """Runs the hooks of callbacks, for each row with its own module, Trainer and new callbacks of `arguments`."""

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
