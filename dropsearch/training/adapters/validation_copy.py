"""A user module's validation run aside, on a copy, so that what the module keeps for its own is not disturbed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from dropsearch._compat.lightning import package_of
from dropsearch._compat.lightning_validation import validation_beside
from dropsearch.training.adapters.module_copy import ModuleCopies
from dropsearch.training.controlled_trial import hooks_of

_HOOKS = {f"on_validation_{each}" for each in ("start", "epoch_start", "batch_start", "model_eval")}
"""Hooks that run before a validation step."""


class ValidationAside:
    """Runs a user module's validation on other batches than its own, with dropout off. There is one for each trial.

    Lightning itself validates a copy: the means, the stage and the hooks are its own. Modules gather outputs in lists
    and in metric objects between the steps of a validation: theirs must not see these batches. The copy shares the
    weights.

    Args:
        batches: An iterable of batches, or a list of them.
    """

    def __init__(self, batches: Any) -> None:
        self._batches, self._copies = batches, ModuleCopies()
        self._validate: Callable[[Any], dict[str, float]] | None = None

    def measure(
        self, module: Any, trainer: Any, controlled: Callable[[Any], AbstractContextManager[None]] = nullcontext
    ) -> dict[str, float]:
        """Return what the module logs, by name; empty where it cannot be run like this.

        Args:
            module: As it trains.
            trainer: The Trainer that trains it, the same one in each call.
            controlled: Takes the copy; returns the context in which it is validated.
        """
        # Hooks may put other weights in place for a validation, and an error keeps them from putting these back.
        weights = [each.detach().clone() for each in module.parameters()] if _HOOKS & {*hooks_of(type(module))} else []
        try:
            twin = self._copies.make(module)
            with warnings.catch_warnings(), controlled(twin):
                warnings.simplefilter("ignore")  # said of the validation itself, where it matters
                if self._validate is None:
                    self._validate = validation_beside(package_of(module), trainer, self._batches)
                return self._validate(twin)
        except Exception:  # user code, run where it was not meant to: there is no such curve then
            with torch.no_grad():
                for parameter, kept in zip(module.parameters(), weights, strict=bool(weights)):
                    parameter.copy_(kept)
            return {}
