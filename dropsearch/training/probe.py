"""A first look at a foreign module: one batch of a real fit, to see where it drops, what it logs and how it learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lightning import Callback
from torch.optim import Optimizer

from dropsearch.dropout.rehearsal import copied, examples_in
from dropsearch.dropout.sites import dropout_sites
from dropsearch.errors import InputError
from dropsearch.records import Site
from dropsearch.training.alone import quiet_lightning, told
from dropsearch.training.feed import TrainerSettings
from dropsearch.training.logs import wrapped_step
from dropsearch.training.measures import ValidationNames
from dropsearch.training.modes import set_to_train
from dropsearch.training.trainers import make_trainer


@dataclass(frozen=True)
class Probe:
    """What one batch showed."""

    sites: tuple[Site, ...]
    optimizers: list[Optimizer]
    """As `configure_optimizers` returned them."""
    logged: dict[str, float]
    """What the module logs at validation."""
    batch: Any
    """As the Trainer hands it to `training_step`."""


class _Noting(Callback):
    """Notes what is logged at validation."""

    def __init__(self, names: ValidationNames) -> None:
        self._names = names

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._names.before(trainer.callback_metrics)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._names.after(trainer.callback_metrics)


def probe(module: Any, batches: dict[str, Any], settings: TrainerSettings) -> Probe:
    """Fit a module for one batch, validate it on one, and throw it away.

    Args:
        module: It trains, so it is not the same afterwards.
        batches: What `Trainer.fit` takes its batches from.
        settings: What all trials share.

    Raises:
        InputError: The module cannot be trained like this.
    """
    found: list[tuple[tuple[Site, ...], Any]] = []

    def recording(training_step: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            answer: list[Any] = []
            batch = copied(next(iter((*args, *kwargs.values()))))
            sites = dropout_sites(
                module,
                lambda: answer.append(training_step(*args, **kwargs)),
                examples=examples_in(batch),
                own_step=True,
            )
            found.append((sites, batch))
            return answer[0]

        return step

    names = ValidationNames()
    # The user's callbacks wait for the trials: they may write files.
    given = {name: value for name, value in settings.trainer().items() if name != "callbacks"}
    settings = dataclasses.replace(settings, trainer=lambda: given)
    set_to_train(module)
    try:
        with quiet_lightning(), wrapped_step(module, recording):
            trainer = make_trainer(
                module, settings, [_Noting(names)], max_epochs=1, limit_train_batches=1, limit_val_batches=1
            )
            trainer.fit(module, **batches)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"model={type(module).__name__} must train for one batch before it is searched, and did not: {told(error)}"
        ) from error
    if not found:
        raise InputError(f"model={type(module).__name__} must have a training_step that is called, and it was not")
    sites, batch = found[0]
    return Probe(sites, list(trainer.optimizers), names.values(trainer.callback_metrics), batch)
