"""A probe of a user module: a few batches of a real fit, to find its sites, logged metrics and optimizers."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from dropsearch._compat.lightning import running_hook
from dropsearch.core.batches import examples_in
from dropsearch.core.errors import InputError
from dropsearch.core.records import Site
from dropsearch.core.user_errors import USER_ERRORS, described
from dropsearch.dropout.sites import dropout_sites
from dropsearch.dropout.tools.dry_run import copied
from dropsearch.dropout.unsupported import UNMET
from dropsearch.training.epoch_metrics import LoggedMetrics
from dropsearch.training.logged_steps import set_to_train, wrapped_step
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.trainers import make_trainer, quiet_lightning

LATE_STEPS = 4
"""Steps of an epoch in which sites are looked for that the first step did not reach."""
LATE_SECONDS = 10.0
MOST_EPOCHS = 20
"""Epochs in which a module is looked at, at most."""


@dataclass(frozen=True)
class ModuleProbe:
    """The result of a probe."""

    sites: tuple[Site, ...]
    optimizers: list[Optimizer]
    logged: dict[str, float]
    elsewhere: dict[str, str]
    """Other logged metrics by name, with the reason why they are not available after a validation."""
    batch: Any


def probe(
    module: Any, batches: dict[str, Any], settings: TrainerSettings, per_call: Collection[str] = ()
) -> ModuleProbe:
    """Fit a module, which it changes, for one batch and validate it on one; raise `InputError` if that fails."""
    found: list[tuple[tuple[Site, ...], Any]] = []
    recording = _recording(module, per_call, lambda *each: found.append(each))
    names, calls = LoggedMetrics(), _noted_logs(module)
    settings = for_a_look(settings)
    set_to_train(module)
    try:
        with quiet_lightning(), wrapped_step(module, recording):
            warnings.filterwarnings("ignore", message=".*configure_optimizers. returned .None.*")  # rejected below
            trainer = make_trainer(module, settings, [names], max_epochs=1, limit_train_batches=1, limit_val_batches=1)
            trainer.fit(module, **batches)
    except InputError:
        raise
    except USER_ERRORS as error:
        raise InputError(
            f"model={type(module).__name__} must be able to train for one batch, but failed: {described(error)}"
        ) from error
    if not found:
        raise InputError(
            f"model={type(module).__name__} must have a training_step that the Trainer calls, but it was not called"
        )
    if module.automatic_optimization and not any(each.state_dict() for each in trainer.optimizers):
        raise InputError(
            f"model={type(module).__name__} must return an optimizer from configure_optimizers, got none: without one "
            "nothing is trained"
        )
    sites, batch = found[0]
    optimizers, logged = list(trainer.optimizers), names.validation
    sites = _with_late(module, batches, settings, per_call, sites)
    elsewhere = {name: why for name, why in calls.items() if name not in logged}
    return ModuleProbe(sites, optimizers, logged, elsewhere, batch)


def _recording(
    module: Any, per_call: Collection[str], note: Callable[[tuple[Site, ...], Any], None]
) -> Callable[..., Any]:
    """Return a wrapper of a training step that passes the sites and the batch of each step to `note`."""

    def recording(training_step: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            answer: list[Any] = []
            batch = copied(next(iter((*args, *kwargs.values()))))
            sites = dropout_sites(
                module,
                lambda: answer.append(training_step(*args, **kwargs)),
                examples=examples_in(batch),
                per_call=per_call,
            )
            note(sites, batch)
            return answer[0]

        return step

    return recording


def _with_late(
    module: Any,
    batches: dict[str, Any],
    settings: TrainerSettings,
    per_call: Collection[str],
    sites: tuple[Site, ...],
) -> tuple[Site, ...]:
    """Return the sites of a module, those included that only a later step or epoch reaches."""
    found, until = {site.name: site for site in sites}, time.monotonic() + LATE_SECONDS

    def note(seen: tuple[Site, ...], batch: Any) -> None:
        for site in seen:
            if site.name not in found or found[site.name].reason == UNMET:
                found[site.name] = site
        is_complete = all(site.reason != UNMET for site in found.values())
        module.trainer.should_stop = is_complete or time.monotonic() > until

    if any(site.reason == UNMET for site in sites) or not any(site.controllable for site in sites):
        with wrapped_step(module, _recording(module, per_call, note)):
            trained_for(module, batches, settings, steps=LATE_STEPS, epochs=settings.max_epochs)
    return tuple(found.values())


def trained_for(module: Any, batches: dict[str, Any], settings: TrainerSettings, steps: int, epochs: int = 1) -> bool:
    """Train a module, which it changes, for a few steps in each of up to `MOST_EPOCHS`; return whether it could be.

    The user's callbacks are left out.
    """
    shared = for_a_look(settings, limit_train_batches=steps, limit_val_batches=0)
    try:
        with quiet_lightning():
            warnings.filterwarnings("ignore", message=".*")  # shown in the trials
            trainer = make_trainer(module, shared, [], max_epochs=min(epochs, MOST_EPOCHS))
            trainer.fit(set_to_train(module), **batches)
    except Exception:  # what fails here fails in the trials too, which say why
        return False
    module.__dict__["_trainer"] = None
    return True


def for_a_look(settings: TrainerSettings, **more: Any) -> TrainerSettings:
    """Return the settings for training a module on a few batches, with `more` arguments of the Trainer.

    The user's callbacks are left out, since they may write files, and every epoch is validated.
    """
    left_out = ("callbacks", "check_val_every_n_epoch", "val_check_interval")
    given = {name: value for name, value in settings.trainer().items() if name not in left_out}
    return dataclasses.replace(settings, trainer=lambda: {**given, **more})


def _noted_logs(module: Any) -> dict[str, str]:
    """Record calls of a module's `log` by metric, with the reason why a validation may lack the metric."""
    calls: dict[str, str] = {}
    log = module.log

    def noting(name: str, value: Any, *args: Any, **options: Any) -> Any:
        hook = running_hook(module) or "a hook"
        validating = "validation" in hook
        calls[name] = f"{hook} logs per step only: log it with on_epoch=True" if validating else f"{hook} logs"
        return log(name, value, *args, **options)

    module.log = noting  # `log_dict` calls it too
    return calls
