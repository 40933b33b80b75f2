"""One training step and one validation step of a module, run to see what they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dropsearch.core.errors import UnsupportedError
from dropsearch.core.global_rng import generator_states, seeded
from dropsearch.training.logged_steps import call_step, on_device_of
from dropsearch.training.modes import set_to_train
from dropsearch.training.protocols import RowDataSource
from dropsearch.training.vectorized.effects import EffectRecorder, ItemsAsTensors
from dropsearch.training.vectorized.row_optimizers import configure_optimizer
from dropsearch.training.vectorized.row_trainer import RowTrainer, StepTrainer
from dropsearch.training.vectorized.step_traits import AttributeWatch, StepTraits, static_traits


def observed_traits(module: Any, trainer: RowTrainer, batch: Any, val_batch: Any) -> StepTraits:
    """Return what the steps of a module do beside computing a loss.

    Args:
        module: A module that is used for nothing else.
        trainer: Its Trainer.
        batch: A training batch.
        val_batch: A validation batch.

    Raises:
        UnsupportedError: A step does what cannot be done for many rows at once.
    """
    traits = static_traits(module)
    module.trainer = trainer
    if "setup" in traits.hooks:
        module.setup("fit")
    traits.has_plateau = any(schedule.monitor is not None for schedule in configure_optimizer(module)[1])
    stepping = module.trainer = StepTrainer(trainer)
    with seeded(0), torch.no_grad():
        for step, given in (("training_step", batch), ("validation_step", val_batch)):
            stepping.step = step
            set_to_train(module) if step == "training_step" else module.eval()
            trainer.now(training=step == "training_step", validating=step != "training_step")
            _observe(module, step, given, traits)
    traits.uses_clock = stepping.has_read_clock
    return traits


def traits_of(module: Any, make_trainer: Callable[[Any], RowTrainer], data: RowDataSource) -> StepTraits:
    """Return what the steps of a module do, observed on the first batches of the data; see `observed_traits`."""
    batches = (next(iter(data.train_loader(0))), next(iter(data.val_dataloader())))
    return observed_traits(module, make_trainer(module), *(on_device_of(module, batch) for batch in batches))


def datamodule_of(data: Any) -> Any:
    """Return the user's data module, as a Trainer knows it; None if the data comes from loaders alone."""
    return getattr(data, "datamodule", None)


def _observe(module: Any, step: str, batch: Any, traits: StepTraits) -> None:
    index, watch, states = ObservedInt(0), AttributeWatch(module), generator_states()
    recorder = EffectRecorder(module, traits)
    with recorder.recording(keeps_attributes=False), ItemsAsTensors(replaces=False) as items:
        result = call_step(getattr(module, step), batch, index)
    traits.attributes |= set(watch.changed())
    watch.put_back()
    # Other random operations of torch than dropout are rejected by vmap.
    drawn = [name for name in ("random", "numpy.random") if generator_states()[name] != states[name]]
    if drawn:
        raise UnsupportedError(f"{step} draws random numbers from {drawn[0]}")
    if step == "training_step" and not isinstance(result, torch.Tensor) and "loss" not in (result or {}):
        raise UnsupportedError("training_step does not return a loss")
    traits.uses_batch_idx |= ObservedInt.used
    traits.uses_item |= items.seen
    if step == "validation_step":
        traits.logged = tuple(effect.name for effect in recorder.effects if effect.kind == "log")
        traits.logs_beyond_means = any(not effect.is_mean for effect in recorder.effects)


class ObservedInt(int):
    """An integer for `batch_idx` that sets `ObservedInt.used` if an operation uses its value."""

    used = False

    def __new__(cls, value: int) -> ObservedInt:
        """Make one that was not used."""
        ObservedInt.used = False
        return super().__new__(cls, value)


def _observed_operator(name: str) -> Callable[..., Any]:
    original = getattr(int, name)

    def operator(self: ObservedInt, *args: Any) -> Any:
        ObservedInt.used = True
        return original(self, *args)

    return operator


_OPERATORS = (
    "add radd sub rsub mul rmul mod rmod floordiv truediv eq ne lt le gt ge bool index int float str repr format and or"
)
for _name in _OPERATORS.split():
    setattr(ObservedInt, f"__{_name}__", _observed_operator(f"__{_name}__"))
ObservedInt.__hash__ = int.__hash__  # type: ignore[method-assign]
