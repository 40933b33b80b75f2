"""Sequential training with plain Lightning, the reference for all other engines."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from dropsearch._compat.lightning_trainer import KeepSigtermHandler
from dropsearch._compat.torch_modules import named_parts
from dropsearch.core.errors import InputError, RunError
from dropsearch.core.global_state import process_state_kept, reseed, reseeding_follows, seeded
from dropsearch.core.records import TrialResult, TrialSpec
from dropsearch.core.user_errors import described, message_of
from dropsearch.dropout.trial_control import FirstSteps, HiddenDrawError, TrialControl
from dropsearch.training.adapters.checkpoints import save_checkpoint
from dropsearch.training.adapters.learning_rate import used_settings
from dropsearch.training.controlled_trial import controlled_hooks, controlled_trial, drops_nothing, require_no_drops
from dropsearch.training.epoch_report import Again, CancelledTrialError, Ending, EpochReport
from dropsearch.training.feeds import CheckedFeed
from dropsearch.training.logged_steps import set_to_train, wrapped_hook
from dropsearch.training.protocols import (
    INTERRUPTED,
    CheckpointPath,
    DataSource,
    Engine,
    Feed,
    TrainerSettings,
    describe_engine,
)
from dropsearch.training.trainers import make_trainer, quiet_lightning

ModuleFactory = Callable[[TrialSpec], LightningModule]
"""Builds the module of a trial; its initial weights are a function of the trial's seed."""


@dataclass(eq=False)
class SequentialEngine(Engine):
    """Trains the trials of a feed one after the other, each with a new `lightning.Trainer`."""

    make_module: ModuleFactory
    data: DataSource
    settings: TrainerSettings
    checkpoint_path: CheckpointPath = lambda _: None
    reason: str = ""

    def __post_init__(self) -> None:
        self._part = self.data.train_part_loader()
        self._first_steps: dict[Any, FirstSteps] = {}
        """What the first steps of trials showed, by their code."""

    def describe(self, processes: int = 1) -> str:
        """Return the description of several processes that run this engine."""
        device = "cuda" if self.settings.accelerator == "gpu" else "cpu"
        return describe_engine("sequential", device, 1, processes=processes, reason=self.reason)

    def run(self, feed: Feed) -> None:
        """Train until the feed has no more trials or is cancelled."""
        checked = CheckedFeed(feed)
        while not checked.cancelled() and (specs := checked.ask(1)):
            checked.tell([self.train(spec, checked) for spec in specs])

    def train(self, spec: TrialSpec, feed: Feed) -> TrialResult:
        """Train one trial. An error becomes the reason of a failed result."""
        ending, started = Ending(), time.perf_counter()
        path, on_interrupt = self.checkpoint_path(spec), signal.getsignal(signal.SIGINT)
        try:
            hidden = self._attempt(spec, feed, ending, path)
            if hidden:  # not in the handler of the error, which keeps all of the first attempt in memory
                again, ending = Again(feed, len(ending.curve)), Ending()
                self._attempt(spec, again, ending, path)
        except CancelledTrialError:
            ending.state, ending.reason = "FAIL", INTERRUPTED
        except (InputError, RunError):  # not an error of this trial
            raise
        except torch.cuda.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            ending.state, ending.reason = "FAIL", f"out of memory: {message_of(error)}"
        except (SystemExit, KeyboardInterrupt) as error:
            if feed.cancelled():  # second Ctrl-C
                raise
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, on_interrupt)  # Lightning ignores Ctrl-C from then on
            cause = error.__context__ if isinstance(error.__context__, KeyboardInterrupt) else error
            ending.state, ending.reason = "FAIL", described(cause)
        except BaseException as error:  # user code may raise anything, such as asyncio.CancelledError
            ending.state, ending.reason = "FAIL", described(error)
        seconds = time.perf_counter() - started
        saved = str(path) if path is not None and ending.state == "COMPLETE" else ""
        return TrialResult(
            spec, ending.state, tuple(ending.curve), seconds, ending.reason, saved, ending.sha256, ending.used.lr
        )

    def _attempt(self, spec: TrialSpec, feed: Feed | Again, ending: Ending, path: Path | None) -> bool:
        """Train a trial; return whether a step drew random numbers that the control did not see."""
        try:
            with process_state_kept():
                self._fit(spec, feed, ending, path)
        except HiddenDrawError:
            return True
        return False

    def _known_steps(self, module: LightningModule, spec: TrialSpec) -> FirstSteps:
        """Return what is known of trials with the same arm, layers and searched choices."""
        choices = {name: value for name, value in spec.hyperparameters.items() if not isinstance(value, float)}
        layers = tuple((path, type(part)) for path, part in named_parts(module))
        return self._first_steps.setdefault((spec.arm, layers, repr(choices)), FirstSteps())

    def _fit(self, spec: TrialSpec, feed: Feed | Again, ending: Ending, path: Path | None) -> None:
        with seeded(spec.seed):
            module = self.make_module(spec)
            with reseeding_follows(spec.seed):
                self._fit_seeded(module, spec, feed, ending, path)

    def _fit_seeded(
        self, module: LightningModule, spec: TrialSpec, feed: Feed | Again, ending: Ending, path: Path | None
    ) -> None:
        set_to_train(module)
        data = self.data.for_trial(spec)
        part = self._part if data is self.data else data.train_part_loader()
        control = TrialControl(
            module,
            spec.rates,
            self.settings.mask_seed(spec),
            off=drops_nothing(spec),
            first_steps=self._known_steps(module, spec),
        )
        report = EpochReport(
            control, spec, feed, data, part, ending, keep_best=path is not None, settings=self.settings
        )
        with quiet_lightning(), controlled_trial(module, control, ending.losses), used_settings() as ending.used:
            trainer: Any = self._trainer(module, spec, report)
            users = [each for each in trainer.callbacks if not isinstance(each, EpochReport | KeepSigtermHandler)]
            at_end = wrapped_hook(module, "on_train_epoch_end", partial(partial, report.at_epoch_end, module))
            with at_end, controlled_hooks(control, *users):
                batches = _batches(data, self.settings.batch_seed(spec))
                reseed(spec.seed)  # whatever making loaders drew, so that layers of hooks get the same weights anywhere
                trainer.fit(module, **batches)
        require_no_drops(control, spec)
        if ending.state == "COMPLETE" and not ending.curve:
            raise InputError(
                f"the trainer must validate at least once in trainer.max_epochs={self.settings.max_epochs} epochs, and "
                "did not: see trainer.check_val_every_n_epoch and trainer.val_check_interval"
            )
        if path is not None and ending.state == "COMPLETE" and ending.best_weights is not None:
            module.load_state_dict(ending.best_weights)
            ending.sha256 = save_checkpoint(trainer, path)

    def _trainer(self, module: LightningModule, spec: TrialSpec, report: Callback) -> Trainer:
        return make_trainer(
            module,
            self.settings,
            [report, KeepSigtermHandler()],
            max_epochs=self.settings.max_epochs,
            gradient_clip_val=self.settings.clip(spec),
        )


def _batches(data: Any, seed: int) -> dict[str, Any]:
    own = getattr(data, "for_trainer", None)
    if own is not None:
        return own(seed)
    return {"train_dataloaders": data.train_loader(seed), "val_dataloaders": data.val_dataloader()}
