"""Sequential training with plain Lightning, the reference for all other engines."""

from __future__ import annotations

import copy
import math
import signal
import threading
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from dropsearch._compat.lightning_signals import KeepSigtermHandler
from dropsearch.core.errors import InputError, RunError
from dropsearch.core.global_state import process_state_kept, reseeding_follows, seeded
from dropsearch.core.records import EpochMetrics, State, TrialResult, TrialSpec
from dropsearch.core.user_errors import described, message_of
from dropsearch.dropout.trial_control import TRAINING_PART, HiddenDrawError, TrialControl
from dropsearch.training.adapters.checkpoints import save_checkpoint
from dropsearch.training.adapters.learning_rate import UsedSettings, used_settings
from dropsearch.training.adapters.validation_copy import ValidationAside
from dropsearch.training.controlled_trial import (
    controlled_copy,
    controlled_hooks,
    controlled_trial,
    drops_nothing,
    require_no_drops,
)
from dropsearch.training.epoch_metrics import LoggedMetrics, diverged, epoch_metrics
from dropsearch.training.logged_steps import evaluate, runs_aside, set_to_train, wrapped_hook
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


@dataclass
class _Ending:
    """The state of a trial's end, filled in while it runs."""

    state: State = "COMPLETE"
    reason: str = ""
    curve: list[EpochMetrics] = field(default_factory=list)
    losses: list[torch.Tensor] = field(default_factory=list)
    """Losses of the epoch's batches so far, as returned by `training_step`."""
    validated_weights: dict[str, Any] | None = None
    """Weights of the last validation."""
    best_weights: dict[str, Any] | None = None
    sha256: str = ""
    """Checksum of the checkpoint, if one was written."""
    used: UsedSettings = field(default_factory=UsedSettings)


class _CancelledError(Exception):
    """The feed was cancelled in the middle of an epoch."""


class _EpochReport(Callback):
    """Reports each epoch to the feed and stops the trial if the feed prunes it."""

    def __init__(
        self,
        control: TrialControl,
        spec: TrialSpec,
        feed: Feed | _Again,
        data: Any,
        part: Any,
        ending: _Ending,
        keep_best: bool,
        settings: TrainerSettings,
    ) -> None:
        self.control, self.spec, self.feed, self.data, self.part = control, spec, feed, data, part
        self.ending, self.keep_best, self.settings = ending, keep_best, settings
        self._metrics, self._aside = LoggedMetrics(), ValidationAside(part)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._metrics.before(trainer.callback_metrics)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Before any other hook, since callbacks and modules that validate averaged weights then restore the others.
        if self.keep_best and not trainer.sanity_checking:
            self.ending.validated_weights = copy.deepcopy(pl_module.state_dict())

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._metrics.after(trainer.callback_metrics)

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        if self.feed.cancelled():
            raise _CancelledError

    def at_epoch_end(self, module: LightningModule, own: Callable[..., Any], *args: Any) -> Any:
        """Run the module's hook, then report the epoch with the metrics logged there."""
        answer = own(*args)
        self._report(module.trainer, module)
        return answer

    def _report(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.enable_validation and not self._metrics.validated:
            return  # none was due, by `check_val_every_n_epoch` or `val_check_interval`
        as_trained = bool(self.ending.losses)
        metrics = self._measure(trainer, pl_module)
        if not math.isfinite(metrics.objective) or (as_trained and not math.isfinite(metrics.train_loss_as_trained)):
            self._stop(trainer, "FAIL", diverged(metrics, self.settings.monitor))
            self.ending.curve.append(metrics)
            return
        if self.keep_best and metrics.objective < min((p.objective for p in self.ending.curve), default=math.inf):
            self.ending.best_weights = self.ending.validated_weights or copy.deepcopy(pl_module.state_dict())
        self.ending.curve.append(metrics)
        (prune,) = self.feed.report([(self.spec, metrics)])
        # A trial in its last epoch is complete and not pruned.
        if prune and metrics.epoch + 1 < (trainer.max_epochs or 0):
            self._stop(trainer, "PRUNED", f"pruned after epoch {metrics.epoch + 1}")

    def _measure(self, trainer: Trainer, module: LightningModule) -> EpochMetrics:
        logged, losses = trainer.callback_metrics, self.ending.losses
        is_due = self.settings.measures_part(self.spec, self.data, trainer.current_epoch, self.ending.curve)
        part = self._measure_part(trainer, module) if is_due else {}
        as_trained = float(torch.stack(losses).double().mean()) if losses else float(logged.get("train_loss", math.nan))
        losses.clear()
        val, elsewhere = self._metrics.validation, self._metrics.elsewhere(logged)
        elsewhere |= _logged_by_hand(trainer, {*val, *elsewhere})
        if runs_aside(module):
            elsewhere = {}  # such a step logs its loss, which has its own field
        return epoch_metrics(trainer.current_epoch, as_trained, part, val, self.settings.monitor, elsewhere)

    def _measure_part(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        controlled = lambda twin: controlled_copy(twin, self.control)  # noqa: E731
        # steps and loaders draw random numbers, which must not affect training
        with self.control.evaluating(TRAINING_PART), seeded(self.spec.seed):
            if runs_aside(module):
                return evaluate(module, self.part, context=trainer.precision_plugin.val_step_context)
            return self._aside.measure(module, trainer, controlled)

    def _stop(self, trainer: Trainer, state: State, reason: str) -> None:
        # Raising here would lose the epoch's metrics; `should_stop` ends the fit cleanly.
        self.ending.state, self.ending.reason = state, reason
        trainer.should_stop = True


def _logged_by_hand(trainer: Trainer, known: Set[str]) -> dict[str, float]:
    """Return and clear the epoch's metrics in the silent logger that the Trainer does not have."""
    metrics = getattr(trainer.logger, "metrics", None)
    if not isinstance(metrics, dict):
        return {}
    found = {name: value for name, value in metrics.items() if name not in known}
    metrics.clear()
    return found


class _Again:
    """Wraps a feed that already received the first epochs of a trial."""

    def __init__(self, feed: Feed, epochs: int) -> None:
        self._feed, self._epochs = feed, epochs
        self.cancelled = feed.cancelled

    def report(self, reports: Sequence[tuple[TrialSpec, EpochMetrics]]) -> list[bool]:
        """Report new epochs only."""
        if self._epochs:
            self._epochs -= 1
            return [False]
        return self._feed.report(reports)


class SequentialEngine(Engine):
    """Trains the trials of a feed one after the other, each with a new `lightning.Trainer`.

    Args:
        make_module: Builds a trial's module.
        data: The data.
        settings: Training settings shared by all trials.
        checkpoint_path: Returns the path for the weights of a trial's best epoch.
        reason: Why trials train sequentially.
    """

    def __init__(
        self,
        make_module: ModuleFactory,
        data: DataSource,
        settings: TrainerSettings,
        checkpoint_path: CheckpointPath = lambda _: None,
        reason: str = "",
    ) -> None:
        self.make_module = make_module
        self.data = data
        self.settings = settings
        self.checkpoint_path = checkpoint_path
        self.reason = reason
        self._part = data.train_part_loader()
        self._needs_mode = False
        """Whether a step drew random numbers by a function that only the function mode sees, after steps without."""

    def describe(self, processes: int = 1) -> str:
        """Return the description of several processes that run this engine."""
        device = "cuda" if self.settings.accelerator == "gpu" else "cpu"
        return describe_engine("sequential", device, 1, processes=processes, reason=self.reason)

    def run(self, feed: Feed) -> None:
        """Train until the feed has no more trials or is cancelled."""
        while not feed.cancelled() and (specs := feed.ask(1)):
            feed.tell([self.train(spec, feed) for spec in specs])

    def train(self, spec: TrialSpec, feed: Feed) -> TrialResult:
        """Train one trial. An error becomes the reason of a failed result."""
        ending, started = _Ending(), time.perf_counter()
        path, on_interrupt = self.checkpoint_path(spec), signal.getsignal(signal.SIGINT)
        try:
            hidden = self._attempt(spec, feed, ending, path)
            if hidden:  # not in the handler of the error, which keeps all of the first attempt in memory
                self._needs_mode, again = True, _Again(feed, len(ending.curve))
                ending = _Ending()
                self._attempt(spec, again, ending, path)
        except _CancelledError:
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

    def _attempt(self, spec: TrialSpec, feed: Feed | _Again, ending: _Ending, path: Path | None) -> bool:
        """Train a trial; return whether a step drew random numbers that the control did not see."""
        try:
            with process_state_kept():
                self._fit(spec, feed, ending, path)
        except HiddenDrawError:
            return True
        return False

    def _fit(self, spec: TrialSpec, feed: Feed | _Again, ending: _Ending, path: Path | None) -> None:
        with seeded(spec.seed):
            module = self.make_module(spec)
            with reseeding_follows(spec.seed):
                self._fit_seeded(module, spec, feed, ending, path)

    def _fit_seeded(
        self, module: LightningModule, spec: TrialSpec, feed: Feed | _Again, ending: _Ending, path: Path | None
    ) -> None:
        set_to_train(module)
        data = self.data.for_trial(spec)
        part = self._part if data is self.data else data.train_part_loader()
        control = TrialControl(
            module,
            spec.rates,
            self.settings.mask_seed(spec),
            off=drops_nothing(spec),
            needs_mode=self._needs_mode,
        )
        report = _EpochReport(
            control, spec, feed, data, part, ending, keep_best=path is not None, settings=self.settings
        )
        with quiet_lightning(), controlled_trial(module, control, ending.losses), used_settings() as ending.used:
            trainer: Any = self._trainer(module, spec, report)
            users = [each for each in trainer.callbacks if not isinstance(each, _EpochReport | KeepSigtermHandler)]
            at_end = wrapped_hook(module, "on_train_epoch_end", partial(partial, report.at_epoch_end, module))
            with at_end, controlled_hooks(control, *users):
                trainer.fit(module, **_batches(data, self.settings.batch_seed(spec)))
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
    """Return the data arguments of `Trainer.fit`."""
    own = getattr(data, "for_trainer", None)
    if own is not None:
        return own(seed)
    return {"train_dataloaders": data.train_loader(seed), "val_dataloaders": data.val_dataloader()}
