"""Checks whether a module and arguments of the Trainer allow vectorized training, and what would make it possible."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from lightning import Trainer
from torch import nn

from dropsearch._compat.lightning import transfer_hooks
from dropsearch.core.errors import UnsupportedError
from dropsearch.core.records import Monitor, TrialSpec
from dropsearch.core.user_errors import message_of, place_of_class, place_of_error, place_of_method
from dropsearch.training.batch_transfer import are_in_steps
from dropsearch.training.logged_steps import EPOCH_HOOKS
from dropsearch.training.protocols import DataSource
from dropsearch.training.trainers import as_list, is_kind, with_steps
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
    yield from _static(module, type(getattr(data, "datamodule", None)))
    # With manual optimization, a step neither returns a loss nor leaves the optimizers alone.
    if data is not None and module.automatic_optimization:
        yield from _dynamic(module, data, monitor, trainer)


def _static(module: Any, data_module: type) -> Iterator[str]:
    if not module.automatic_optimization:
        yield f"the module uses manual optimization{place_of_method(module, 'training_step')}"
    yield from _tensors(module)
    in_steps = transfer_hooks(type(module)) if are_in_steps(type(module), data_module) else ()
    for name in overridden(module):
        if name not in (*HARMLESS, *in_steps) and name not in EPOCH_HOOKS and name not in BATCH_HOOKS:
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
    with_steps(trainer, loader)
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


REMEDIES = (
    (r"manual optimization", "automatic optimization with one optimizer"),
    (
        r"several optimizers|\d+ optimizers|not a single optimizer",
        "one optimizer; its parameter groups may have rates of their own",
    ),
    (r"evaluates the loss several times", "an optimizer that evaluates the loss once a step"),
    (r"before it evaluates the loss", "an optimizer that evaluates the loss before it changes weights"),
    (r"watches a metric at each step", "a schedule that watches its metric at the end of an epoch"),
    (r"computes the metric", "compute() in a hook at the end of the epoch"),
    (r"draws by (poisson|binomial)", "a distribution whose count of random numbers is known, such as Normal or Gamma"),
    (r"that no trial's seed gives", "torch.rand, torch.randn or the like"),
    (r"fills a tensor that all trials share", "a tensor that the step creates, or a buffer of the module"),
    (r"draws from `random` or `numpy.random`", "torch.rand and the like, or such draws from the first step on"),
    (r"draws .* than the first step", "the same draws in each step, whatever values are drawn"),
    (r"^\w+ draws random numbers", "random numbers drawn in training_step, or in a hook of the epoch"),
    (r"^\w+ drops activations", "self.eval() for what the hook computes, or dropout in training_step"),
    (
        r"a step .*, which differs between trials|reads self\..*, as the first steps did not",
        "param_groups read in the step and set in a hook, such as on_train_batch_start",
    ),
    (r"(reads|sets) (self\.)?trainer\.", "a value that the module keeps itself"),
    (r"does not run in float64", "operations that exist in float64, and tensors of the type of the weights"),
    (r"has max_norm", "an embedding without max_norm, or weights that a hook scales"),
    (r"is a sparse tensor", "a dense tensor, or its indices and values"),
    (r"freezes or unfreezes", "the same parameters trained from the first epoch to the last"),
    (r"changes the mode", "modes that are set in the constructor"),
    (r"ends an epoch early", "trainer.max_epochs, or a pruner of the search"),
    (r"differs between trials, as it did not in", "a buffer of the module"),
    (
        r"changes .*, which (all trials share|no row has for itself)",
        "an attribute that the constructor creates for each module",
    ),
    (r"which holds itself", "a container that does not hold itself"),
    (r"a step reads .*, an iterator", "a number that the step counts up, or the iterator read in a hook of the epoch"),
    (r"keeps a tensor in", "an object that the constructor creates, or a tensor as an attribute of the module"),
    (r"a step changes .* of more than [\d,]+ items", "a container of the module itself, or one that a hook empties"),
    (r"a step changes .* by drawing from it", "torch.rand and the like, or random and numpy.random themselves"),
    (r"a step reads the epoch or step", "the epoch read in each step"),
    (r"a step changes .*, as the first steps did not", "an attribute that each step sets, or a buffer of the module"),
    (r"a step changes", "a list that a step only appends to, emptied in a hook"),
    (r"branches on the value|converts a tensor to a number", "torch.where, or a value that is only logged"),
    (r"shape depends on values", "torch.where, or a weight of 0 or 1 for each element"),
    (r"differs between batches and is not a tensor", "a tensor in its place"),
    (r"does not return a loss", "a loss returned by each step"),
    (r"does not log", "self.log in validation_step"),
    (r"custom reduction", "reduce_fx mean, sum, min or max"),
    (r"logs .*tensor of shape", "a single number"),
    (r"names none by monitor", "monitor in the dict that configure_optimizers returns"),
    (r"a schedule monitors", "a metric that validation_step logs"),
    (r"differ in class or parameter groups", "one class of optimizer and the same groups in every trial"),
    (r"the module overrides", "a hook of Lightning's loop, such as on_before_optimizer_step or on_train_batch_end"),
    (r"there are \d+ validation loaders", "one validation loader"),
    (r"cannot be copied for each trial", "a loader that gives its batches again in each epoch"),
    (r"yields \d+ batches, but its length is", "a loader that has as many batches as its length says"),
    (r"the data module overrides", "the work of the hook in the data set or its collate function"),
    (r"yields no batches", "a loader with batches"),
    (r"the callback", "hooks of the module that do the same, or EMAWeightAveraging for averages of weights"),
    (r"works with sequential training only|^trainer\.", "a search without that argument"),
    (r"is not supported by vectorized training", "trainer.precision 32-true, 64-true or bf16-mixed"),
    (
        r"between vectorized and sequential|in vectorized training",
        "steps that depend on the batch, the module's parameters and buffers, and random numbers of torch alone",
    ),
    (r"^\w+: ", "steps that raise no such error under torch.func.vmap"),
)


def remedy(reason: str) -> str:
    """Return what would make vectorized training possible, or an empty string."""
    return next((change for pattern, change in REMEDIES if re.search(pattern, reason)), "")
