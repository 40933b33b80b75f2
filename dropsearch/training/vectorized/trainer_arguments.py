"""Arguments of the Trainer that rows honour, and why others make trials train sequentially."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lightning import Trainer

from dropsearch.core.user_errors import place_of_class
from dropsearch.training.trainers import as_list, is_kind


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
