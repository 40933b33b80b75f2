"""A first look at a user module: one batch of a real fit, to see where it drops, what it logs and how it learns."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from lightning import Callback
from torch.optim import Optimizer

from dropsearch._compat.lightning import running_hook
from dropsearch.core.batches import examples_in
from dropsearch.core.errors import InputError
from dropsearch.core.records import Site
from dropsearch.core.user_errors import described
from dropsearch.dropout.sites import dropout_sites
from dropsearch.dropout.tools.dry_run import copied
from dropsearch.training.epoch_metrics import LoggedMetrics
from dropsearch.training.logged_steps import wrapped_step
from dropsearch.training.modes import set_to_train
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.trainers import make_trainer, quiet_lightning


@dataclass(frozen=True)
class ModuleProbe:
    """What one batch showed."""

    sites: tuple[Site, ...]
    optimizers: list[Optimizer]
    """As `configure_optimizers` returned them."""
    logged: dict[str, float]
    """What the module logs at validation."""
    elsewhere: dict[str, str]
    """What it logs that no validation is left with, by name: why."""
    batch: Any
    """As the Trainer hands it to `training_step`."""


class _Noting(Callback):
    """Notes what is logged at validation."""

    def __init__(self, names: LoggedMetrics) -> None:
        self._names = names

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self._names.before(trainer.callback_metrics)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._names.after(trainer.callback_metrics)


def probe(
    module: Any, batches: dict[str, Any], settings: TrainerSettings, per_call: Collection[str] = ()
) -> ModuleProbe:
    """Fit a module for one batch, validate it on one, and throw it away.

    Args:
        module: It trains, so it is not the same afterwards.
        batches: What `Trainer.fit` takes its batches from.
        settings: What all trials share.
        per_call: Sites whose calls are told apart, by name or pattern.

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
                per_call=per_call,
            )
            found.append((sites, batch))
            return answer[0]

        return step

    names, calls = LoggedMetrics(), _noted_logs(module)
    settings = for_a_look(settings)
    set_to_train(module)
    try:
        with quiet_lightning(), wrapped_step(module, recording):
            warnings.filterwarnings("ignore", message=".*configure_optimizers. returned .None.*")  # refused below
            trainer = make_trainer(
                module, settings, [_Noting(names)], max_epochs=1, limit_train_batches=1, limit_val_batches=1
            )
            trainer.fit(module, **batches)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"model={type(module).__name__} must train for one batch before it is searched, and did not: "
            f"{described(error)}"
        ) from error
    if not found:
        raise InputError(f"model={type(module).__name__} must have a training_step that is called, and it was not")
    if module.automatic_optimization and not any(each.state_dict() for each in trainer.optimizers):
        raise InputError(
            f"model={type(module).__name__} must return an optimiser from configure_optimizers, got none: without one "
            "nothing is trained"
        )
    sites, batch = found[0]
    logged = names.validation
    elsewhere = {name: why for name, why in calls.items() if name not in logged}
    return ModuleProbe(sites, list(trainer.optimizers), logged, elsewhere, batch)


def trained_for(module: Any, batches: dict[str, Any], settings: TrainerSettings, steps: int) -> bool:
    """Train a module for a few steps, without its callbacks; return whether it could be.

    Args:
        module: It is not the same afterwards.
        batches: What `Trainer.fit` takes its batches from.
        settings: What all trials share.
        steps: Of the optimiser.
    """
    shared = for_a_look(settings, limit_train_batches=steps, limit_val_batches=0)
    try:
        with quiet_lightning():
            warnings.filterwarnings("ignore", message=".*")  # said of the trials, where it matters
            trainer = make_trainer(module, shared, [], max_epochs=1)
            trainer.fit(set_to_train(module), **batches)
    except Exception:  # what fails here fails in the trials too, which say why
        return False
    module.__dict__["_trainer"] = None
    return True


def for_a_look(settings: TrainerSettings, **more: Any) -> TrainerSettings:
    """Return the settings with which a module is looked at for a few batches.

    The user's callbacks wait for the trials, for they may write files; and every epoch is validated.

    Args:
        settings: What all trials share.
        more: Further arguments of the Trainer.
    """
    left_out = ("callbacks", "check_val_every_n_epoch", "val_check_interval")
    given = {name: value for name, value in settings.trainer().items() if name not in left_out}
    return dataclasses.replace(settings, trainer=lambda: {**given, **more})


def _noted_logs(module: Any) -> dict[str, str]:
    """Note each call of a module's `log` from now on: why the validation may be left without what it logs."""
    calls: dict[str, str] = {}
    log = module.log

    def noting(name: str, value: Any, *args: Any, **options: Any) -> Any:
        hook = running_hook(module) or "a hook"
        validating = "validation" in hook
        calls[name] = f"{hook} logs for each step only: log it with on_epoch=True" if validating else f"{hook} logs"
        return log(name, value, *args, **options)

    module.log = noting  # `log_dict` calls it too
    return calls
