"""A check that a module's optimizers use the learning rate and the weight decay that are set."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from lightning import Callback

from dropsearch.core.records import TrialSpec
from dropsearch.training.adapters.hyperparameters import Route
from dropsearch.training.adapters.learning_rate import UsedSettings, used_settings
from dropsearch.training.adapters.probe import for_a_look
from dropsearch.training.logged_steps import set_to_train
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.trainers import make_trainer, quiet_lightning

EPOCHS, BATCHES = 3, 2
"""Numbers of training epochs and batches, enough for a schedule to leave its own initial value."""
FACTOR = 3.0

Make = Callable[[TrialSpec, tuple[Route, ...]], Any]


def checked_routes(
    make: Make, spec: TrialSpec, batches: Mapping[str, Any], settings: TrainerSettings, routes: tuple[Route, ...]
) -> tuple[Route, ...]:
    """Return the routes that the optimizers follow.

    A constructor may ignore its argument, and a hook may set its own learning rate. A setting that has no effect as an
    argument is set on the optimizer's groups; if that also has no effect, it is not searched.
    """
    by_groups = tuple(dataclasses.replace(route, how="groups") if _has_other_way(route) else route for route in routes)
    lazy: list[tuple[UsedSettings, UsedSettings]] = []
    first = _compared(make, spec, batches, settings, routes)

    def checked(route: Route, other: Route) -> Route:
        if not route.searched or first is None or _differ(first, route.setting):
            return route
        if other != route:
            lazy[:] = lazy or list(filter(None, [_compared(make, spec, batches, settings, by_groups)]))
            if lazy and _differ(lazy[0], route.setting):
                return other
        values = [of_groups[0] for of_groups in first[0].steps[route.setting]]
        return dataclasses.replace(route, how="nothing", used=(min(values), max(values)))

    return tuple(checked(route, other) for route, other in zip(routes, by_groups, strict=True))


def _has_other_way(route: Route) -> bool:
    """Return whether the optimizer's groups are an alternative route, with a value to scale."""
    return route.how == "argument" and (route.own > 0 or (route.setting == "weight_decay" and math.isfinite(route.own)))


def _compared(
    make: Make, spec: TrialSpec, batches: Mapping[str, Any], settings: TrainerSettings, routes: tuple[Route, ...]
) -> tuple[UsedSettings, UsedSettings] | None:
    other = dataclasses.replace(spec, lr=spec.lr / FACTOR, weight_decay=spec.weight_decay / FACTOR)
    one, two = (_used(make(each, routes), batches, settings) for each in (spec, other))
    return (one, two) if one and two and one.steps["lr"] and two.steps["lr"] else None


def _differ(compared: tuple[UsedSettings, UsedSettings], setting: str) -> bool:
    one, two = (used.steps[setting] for used in compared)
    return any(a != b for a, b in zip(one, two, strict=False) if not all(map(math.isnan, (*a, *b))))


class _Stop(Callback):
    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch + 1 >= EPOCHS:
            trainer.should_stop = True


def _used(module: Any, batches: Mapping[str, Any], settings: TrainerSettings) -> UsedSettings | None:
    """Train a module for a few batches; return the settings of its optimizer steps, or None if it fails."""
    shared = for_a_look(settings, limit_train_batches=BATCHES, limit_val_batches=1)
    try:
        with quiet_lightning(), warnings.catch_warnings(), used_settings(traced=EPOCHS * BATCHES) as used:
            warnings.simplefilter("ignore")  # shown in the trials
            trainer = make_trainer(module, shared, [_Stop()], max_epochs=settings.max_epochs)
            trainer.fit(set_to_train(module), **batches)
    except Exception:  # what fails here fails in the trials too, which say why
        return None
    return used
