"""Checks whether a user module can be trained vectorized, before any training, and what would make it possible."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from dropsearch.core.errors import UnsupportedError
from dropsearch.core.records import Monitor, TrialSpec
from dropsearch.core.user_errors import message_of, place_of_class, place_of_error, place_of_method
from dropsearch.training.logged_steps import EPOCH_HOOKS
from dropsearch.training.protocols import DataSource
from dropsearch.training.trainers import batches_in, with_steps
from dropsearch.training.vectorized.observation import traits_of
from dropsearch.training.vectorized.row_trainer import RowTrainer
from dropsearch.training.vectorized.step_traits import BATCH_HOOKS, overridden

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


def incompatibilities(
    make_module: Callable[[TrialSpec], Any], data: DataSource | None, spec: TrialSpec, monitor: Monitor, trainer: Any
) -> Iterator[str]:
    """Yield all reasons for which a module cannot be trained vectorized, with their places.

    Looks at the class for manual optimization and for methods that replace a part of Lightning's loop. Then configures
    its optimizers and runs one training and one validation step, and checks whether they ask the Trainer for what
    differs between trials. Of a step the first reason is found. No step runs without data, from which rows
    cannot take batches.
    """
    module = make_module(spec)
    yield from _static(module)
    # With manual optimization, a step neither returns a loss nor leaves the optimizers alone.
    if data is not None and module.automatic_optimization:
        yield from _dynamic(module, data, monitor, trainer)


def _static(module: Any) -> Iterator[str]:
    if not module.automatic_optimization:
        yield f"the module uses manual optimization{place_of_method(module, 'training_step')}"
    yield from _tensors(module)
    for name in overridden(module):
        if name not in HARMLESS and name not in EPOCH_HOOKS and name not in BATCH_HOOKS:
            yield f"the module overrides {name}{place_of_method(module, name)}"


def _tensors(module: Any) -> Iterator[str]:
    """Yield what keeps the parameters and buffers of rows from being stacked."""
    place = place_of_class(type(module))
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.layout is not torch.strided:
            yield f"{name} is a sparse tensor{place}"
    for name, part in module.named_modules():
        if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.max_norm is not None:
            yield f"{name} has max_norm, by which a step changes its weights{place}"


def _dynamic(module: Any, data: DataSource, monitor: Monitor, trainer: Any) -> Iterator[str]:
    loader = data.train_loader(0)
    with_steps(trainer, batches_in(loader))
    errors: list[Exception] = []
    traits = traits_of(module, lambda each: RowTrainer(trainer, each, data, loader), data, errors)
    yield from dict.fromkeys(_said(error, module) for error in errors)
    if not errors and monitor.name not in traits.logged and traits.is_plain:
        yield f"validation_step does not log {monitor.name}{place_of_method(module, 'validation_step')}"


def _said(error: Exception, module: Any) -> str:
    if isinstance(error, UnsupportedError):
        return f"{error}{place_of_error(error)}"
    # User code can fail in any way without a real Trainer.
    return f"{type(error).__name__}: {message_of(error)}{place_of_error(error) or place_of_class(type(module))}"
