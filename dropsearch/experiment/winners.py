"""The confirmed models and the data for their measures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dropsearch.analysis.measures.protocol import Examples, NotMeasuredError, Settings, TrainedModel
from dropsearch.core.errors import InputError, first_cause
from dropsearch.core.global_state import torch_threads
from dropsearch.core.processes import cores
from dropsearch.core.records import TrialResult, TrialSpec
from dropsearch.core.seeds import derived_seed
from dropsearch.experiment.context import ExperimentContext
from dropsearch.training.protocols import TrialData

MOST, LEAST = 2048, 256
"""Maximum number of examples of each set, so that costs do not grow with the data; and the minimum for slow models."""
AFFORDABLE = 1e6
"""Maximum floating-point operations per example with `MOST` examples; costlier models use fewer examples."""
WORTH_CORES = 1e6
"""Floating-point operations per example from which the models are measured on all cores. Several threads gain nothing
in smaller ones, and cost much where other programs keep the cores busy, because each waits for the others."""
LARGEST = 1_000_000
"""Maximum number of examples to read from a set, which may be infinite."""
LARGEST_SIZE = 4 * 2**30
"""Maximum size of the read examples, in bytes."""
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True)
class MeasurementData:
    """The data for the measures of a run's models."""

    held_out: Examples
    """The test set, or the validation set if there is none."""
    of_all: tuple[Examples, Examples] | None
    """Validation and training examples; None if each retraining has its own split."""
    most: int
    """Maximum number of examples of a set."""
    is_image: bool
    settings: Settings
    held_out_size: int
    """Total number of held-out examples, of which at most `MOST` are used."""


def measurement_data(context: ExperimentContext, *, opens_test: bool = True) -> MeasurementData:
    """Return the data for the measures.

    Raises:
        NotMeasuredError: Batches are not inputs and classes, as tensors, or a set is too large to be read.
    """
    config, source = context.config, context.source
    if source.changes_batches:
        raise NotMeasuredError("the data module changes batches in its hooks")
    held_out = _examples(source.test_dataloader() if source.has_test and opens_test else source.val_dataloader())
    settings = Settings(
        tuple(config.evidence.monte_carlo), config.evidence.severities, derived_seed(config.seed, "evidence")
    )
    most = _most(context.modules.operations)
    return MeasurementData(
        held_out.sample(most, settings.seed),
        None if source.redraws_split else _split_of(source, most, settings.seed),
        most,
        is_image=source.layout == "image" if source.layout else held_out.inputs[0].dim() == 4,
        settings=settings,
        held_out_size=len(held_out),
    )


def split_examples(context: ExperimentContext, shared: MeasurementData, spec: TrialSpec) -> tuple[Examples, Examples]:
    """Return the validation and training examples for measuring a trial's model."""
    return shared.of_all or _split_of(context.source.for_trial(spec), shared.most, shared.settings.seed)


def _split_of(data: TrialData, most: int, seed: int) -> tuple[Examples, Examples]:
    """Return `most` validation examples, and as many training examples of the part for comparing losses."""
    validation, train = (_examples(loader) for loader in (data.val_dataloader(), data.train_part_loader()))
    return validation.sample(most, seed), train.sample(most, seed)


def _examples(loader: Iterable[Any]) -> Examples:
    batches = list(_labelled(loader))
    try:
        *inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    except (RuntimeError, ValueError) as error:
        raise NotMeasuredError(
            "it needs batches of equal shapes, but they differ, for example because of padding"
        ) from error
    return Examples(tuple(inputs), targets.long())


def _labelled(loader: Iterable[Any]) -> Iterator[Sequence[Tensor]]:
    read = size = 0
    for batch in loader:
        if not _is_labelled(batch):
            raise NotMeasuredError("it needs batches of input tensors followed by integer classes [batch]")
        read, size = read + len(batch[-1]), size + sum(part.nbytes for part in batch)
        if read > LARGEST or size > LARGEST_SIZE:
            raise NotMeasuredError(
                f"it reads at most {LARGEST:,} examples or {LARGEST_SIZE / 2**30:.3g} GiB of a set, and the set is "
                "larger or infinite: use a smaller test and validation set"
            )
        yield batch


def _is_labelled(batch: Any) -> bool:
    return (
        type(batch) in (list, tuple)
        and len(batch) > 1
        and all(isinstance(part, Tensor) and part.dim() and len(part) == len(batch[0]) for part in batch)
        and batch[-1].dim() == 1
        and batch[-1].dtype in _INTEGERS
    )


@contextmanager
def measuring_threads(context: ExperimentContext) -> Iterator[None]:
    """Let torch use as many threads as help to measure the models of a run, while nothing trains."""
    cost = context.modules.operations
    is_small = cost is not None and cost < WORTH_CORES
    with torch_threads(1 if is_small else max(torch.get_num_threads(), cores())):
        yield


def _most(cost: float | None) -> int:
    """Return the number of examples for a model by its operations per example, the same on any machine."""
    if cost is None:
        return MOST
    return max(min(int(MOST * AFFORDABLE / max(cost, 1.0)), MOST), LEAST)


def trained(context: ExperimentContext, shared: MeasurementData, result: TrialResult, path: Path) -> TrainedModel:
    """Return a retraining's model with the weights of its best epoch, on the data's device, in evaluation mode.

    Raises:
        NotMeasuredError: The checkpoint cannot be loaded, or its logits `[examples, classes]` are not finite.
    """
    try:
        module = context.load(result, path).to(shared.held_out.targets.device).eval()
        with torch.no_grad():
            logits = module(*shared.held_out.inputs)
    except InputError as error:  # without the file name, since notes are for several models
        raise NotMeasuredError("its checkpoint is not the file that the run wrote") from error
    except Exception as error:  # user modules may raise anything
        raise NotMeasuredError(f"{type(error).__name__}: {first_cause(error)[:200]}") from error
    targets = shared.held_out.targets
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(targets):
        raise NotMeasuredError("it needs a module whose forward gives logits [batch, classes]")
    if int(targets.min()) < 0 or int(targets.max()) >= logits.shape[1]:
        raise NotMeasuredError(f"it needs classes from 0 to {logits.shape[1] - 1}, and the data has others")
    if not bool(logits.isfinite().all()):
        raise NotMeasuredError("its logits are not finite")
    validation, train = split_examples(context, shared, result.spec)
    return TrainedModel(
        result.spec, module, module, shared.held_out, validation, train, shared.is_image, shared.settings
    )
