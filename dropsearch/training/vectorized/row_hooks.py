"""The hooks of the modules and callbacks of rows, run outside of `vmap`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from dropsearch._compat.lightning import is_lightning_class, logging_to
from dropsearch.core.errors import UnsupportedError
from dropsearch.core.global_state import generator_states, reseed, reseeding_follows, reseeding_ignored, torch_states
from dropsearch.core.records import TrialSpec
from dropsearch.core.seeds import derived_seed
from dropsearch.core.user_errors import place_of_method
from dropsearch.dropout.ops import op_of
from dropsearch.training.logged_steps import EPOCH_HOOKS
from dropsearch.training.vectorized.attribute_watch import AttributeWatch
from dropsearch.training.vectorized.row_trainer import RowTrainer
from dropsearch.training.vectorized.step_logs import RowLog
from dropsearch.training.vectorized.step_traits import BATCH_HOOKS, StepTraits
from dropsearch.training.vectorized.trial_row import TrialRow


class RowHooks:
    """Runs hooks of rows.

    The random numbers of a hook of an epoch are functions of the trial's seed, which `seed_of` returns, and the epoch.
    """

    def __init__(self, traits: StepTraits, seed_of: Callable[[TrialSpec], int]) -> None:
        self.names, self._carried, self._seed_of = traits.hooks, traits.carried, seed_of

    def overrides(self, name: str) -> bool:
        """Return whether the module overrides a hook."""
        return name in self.names

    def run(self, trial_row: TrialRow, hook: str, *args: Any, log: RowLog | None = None) -> Any:
        """Run a hook of a row's callbacks and module; return the module's result."""
        self.run_callbacks(trial_row, hook, *args)
        return self.run_own(trial_row, hook, *args, log=log)

    @torch.no_grad()
    def run_callbacks(self, trial_row: TrialRow, hook: str, *args: Any) -> None:
        """Run a hook of a row's callbacks."""
        own = any(not is_lightning_class(type(callback)) for callback in trial_row.callbacks)
        watch = AttributeWatch(trial_row.module, trial_row.parts) if own else None
        with trial_row.raising_alone():
            for callback in trial_row.callbacks:
                getattr(callback, hook)(trial_row.view, trial_row.module, *args)
        if watch is not None:
            self._carried |= set(watch.changed())

    def run_own(self, trial_row: TrialRow, hook: str, *args: Any, log: RowLog | None = None) -> Any:
        """Run a hook of a row's module if it overrides it and raised no error; return the hook's result."""
        if not self.overrides(hook) or trial_row.error is not None:
            return None
        log, module = log or trial_row.log, trial_row.module
        assert log is not None
        log.hook = hook
        if hook not in BATCH_HOOKS:
            log.batch_size = None
        place = partial(place_of_method, module, hook)
        draws = hook in EPOCH_HOOKS
        states = None if draws else generator_states()
        trained = [p.requires_grad for p in module.parameters()]
        modes = [part.training for part in module.modules()]
        grad = torch.enable_grad() if log is trial_row.log else torch.no_grad()
        returned, watch, shared = None, AttributeWatch(module, trial_row.parts), trial_row.shared.snapshot()
        # The numbers of steps and loaders do not come from the generators that a hook may seed.
        seeding, drops = reseeding_ignored(), nullcontext()
        if draws:
            reseed(derived_seed(self._seed_of(trial_row.spec), hook, view_of(trial_row).current_epoch))
            seeding, drops = reseeding_follows(trial_row.spec.seed), _NoDrops(hook)
        with logging_to(module, log.log, log.log_dict), grad, seeding, drops, trial_row.raising_alone():
            returned = call_hook(getattr(module, hook), args)
        self._carried |= set(watch.changed())
        trial_row.shared.require_same(shared, hook)
        if not draws and generator_states() != states:
            raise UnsupportedError(f"{hook} draws random numbers{place()}")
        if [p.requires_grad for p in module.parameters()] != trained:
            raise UnsupportedError(f"{hook} freezes or unfreezes parameters{place()}")
        if [part.training for part in module.modules()] != modes:
            raise UnsupportedError(f"{hook} changes the mode of a part of the module{place()}")
        return returned


class _NoDrops(TorchFunctionMode):
    """Raises an error where a hook drops activations, at rates that are not those of its trial."""

    def __init__(self, hook: str) -> None:
        super().__init__()
        self._hook = hook

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        before = torch_states() if op_of(func) is not None else None
        result = func(*args, **(kwargs or {}))
        if before is not None and torch_states() != before:
            raise UnsupportedError(f"{self._hook} drops activations")
        return result


def call_hook(hook: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Call a hook with as many arguments as it accepts, like Lightning."""
    parameters = inspect.signature(hook).parameters.values()
    takes_all = any(each.kind is each.VAR_POSITIONAL for each in parameters)
    return hook(*args[: len(args) if takes_all else len(parameters)])


def view_of(trial_row: TrialRow) -> RowTrainer:
    """Return the Trainer that the module of a row sees."""
    assert trial_row.view is not None
    return trial_row.view
