"""Checks whether a user module can be trained vectorized, before any training, and what would make it possible."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from dropsearch.core.errors import UnsupportedError
from dropsearch.core.records import Monitor, TrialSpec
from dropsearch.core.user_errors import message_of, place_of_error, place_of_method
from dropsearch.training.protocols import DataSource
from dropsearch.training.trainers import batches_in, with_steps
from dropsearch.training.vectorized.observation import datamodule_of, traits_of
from dropsearch.training.vectorized.row_trainer import RowTrainer
from dropsearch.training.vectorized.step_traits import BATCH_HOOKS, EPOCH_HOOKS, overridden

HARMLESS = frozenset(
    {
        "training_step", "validation_step", "test_step", "predict_step", "configure_optimizers", "forward",
        "on_save_checkpoint", "on_load_checkpoint", "load_from_checkpoint", "prepare_data", "train_dataloader",
        "val_dataloader", "test_dataloader", "predict_dataloader", "on_test_epoch_start", "on_test_epoch_end",
        "on_test_start", "on_test_end", "on_test_batch_start", "on_test_batch_end", "on_test_model_eval",
        "on_test_model_train", "on_predict_start", "on_predict_end", "on_predict_epoch_start", "on_predict_epoch_end",
        "on_predict_batch_start", "on_predict_batch_end", "on_predict_model_eval", "on_predict_model_train",
        "on_validation_model_eval", "log", "log_dict", "extra_repr", "example_input_array",
    }
)  # fmt: skip
"""Members of a LightningModule that a module may override and still be trained vectorized."""


REMEDIES = (
    (r"manual optimization", "automatic optimization with one optimizer"),
    (
        r"several optimizers|\d+ optimizers|not a single optimizer",
        "one optimizer; its parameter groups may have rates of their own",
    ),
    (
        r"overrides (optimizer_step|optimizer_zero_grad|backward|configure_gradient_clipping|lr_scheduler_step)",
        "a hook of Lightning's loop, such as on_before_optimizer_step or on_train_batch_end",
    ),
    (r"LBFGS", "an optimizer that evaluates the loss once a step"),
    (r"watches a metric at each step", "a schedule that watches its metric at the end of an epoch"),
    (r"computes the metric", "compute() in a hook at the end of the epoch"),
    (r"draws random numbers from (random|numpy)", "random numbers of torch"),
    (r"(reads|sets) (self\.)?trainer\.", "a value that the module keeps itself"),
    (r"freezes or unfreezes", "the same parameters trained from the first epoch to the last"),
    (r"otherwise than by appending", "a list that a step only appends to, emptied in a hook"),
    (r"there are \d+ validation loaders", "one validation loader"),
    (r"cannot be copied for each trial", "a loader that gives its batches again in each epoch"),
    (r"yields \d+ batches, but its length is", "a loader that has as many batches as its length says"),
    (r"the data module overrides", "the work of the hook in the data set or its collate function"),
    (r"works with sequential training only", "a search without that argument"),
)
"""Patterns of reasons against vectorized training, with a remedy."""


def incompatibilities(
    make_module: Callable[[TrialSpec], Any], data: DataSource | None, spec: TrialSpec, monitor: Monitor, trainer: Any
) -> Iterator[str]:
    """Yield all reasons for which a module cannot be trained vectorized, with their places.

    Looks at the class for manual optimization and for methods that replace a part of Lightning's loop. Then configures
    its optimizers and runs one training and one validation step, and checks whether they draw random numbers from
    Python or NumPy, or ask the Trainer for values that differ between trials. Of a step the first reason is found. No
    step runs without data, from which rows cannot take batches.
    """
    module = make_module(spec)
    yield from _static(module)
    # With manual optimization, a step neither returns a loss nor leaves the optimizers alone.
    if data is not None and module.automatic_optimization:
        yield from _dynamic(module, data, monitor, trainer)


def _static(module: Any) -> Iterator[str]:
    if not module.automatic_optimization:
        yield f"the module uses manual optimization{place_of_method(module, 'training_step')}"
    for name in overridden(module):
        if name not in HARMLESS and name not in EPOCH_HOOKS and name not in BATCH_HOOKS:
            yield f"the module overrides {name}{place_of_method(module, name)}"


def _dynamic(module: Any, data: DataSource, monitor: Monitor, trainer: Any) -> Iterator[str]:
    loader = data.train_loader(0)
    with_steps(trainer, batches_in(loader))
    errors: list[Exception] = []
    traits = traits_of(module, lambda each: RowTrainer(trainer, each, datamodule_of(data), loader), data, errors)
    yield from dict.fromkeys(f"{_said(error)}{place_of_error(error)}" for error in errors)
    if not errors and monitor.name not in traits.logged and traits.is_plain:
        yield f"validation_step does not log {monitor.name}"


def _said(error: Exception) -> str:
    # User code can fail in any way without a real Trainer.
    return str(error) if isinstance(error, UnsupportedError) else f"{type(error).__name__}: {message_of(error)}"


def remedy(reason: str) -> str:
    """Return what would make vectorized training possible, or an empty string."""
    return next((change for pattern, change in REMEDIES if re.search(pattern, reason)), "")
