"""One trial at a time through plain Lightning: the reference that everything faster must equal."""

from __future__ import annotations

import copy
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from dropsearch.drafts import whole
from dropsearch.dropout.control import TrialControl
from dropsearch.errors import RunError
from dropsearch.records import EpochMetrics, State, TrialResult, TrialSpec
from dropsearch.training.feed import INTERRUPTED, CheckpointPath, DataSource, Feed, TrainerSettings
from dropsearch.training.logs import evaluate, wrapped_step
from dropsearch.training.signals import OwnSigterm

ModuleFactory = Callable[[TrialSpec], LightningModule]
"""Builds the module of a trial; its initial weights are a function of the trial's seed."""


@dataclass
class _Ending:
    """How a trial is ending; filled in while it runs."""

    state: State = "COMPLETE"
    reason: str = ""
    curve: list[EpochMetrics] = field(default_factory=list)
    best_weights: dict[str, Any] | None = None


class _CancelledError(Exception):
    """The feed was cancelled in the middle of an epoch."""


class _EpochReport(Callback):
    """Reports each epoch to the feed and stops the trial when it says so."""

    def __init__(self, spec: TrialSpec, feed: Feed, part: Any, ending: _Ending, keep_best: bool) -> None:
        self.spec, self.feed, self.part = spec, feed, part
        self.ending, self.keep_best = ending, keep_best

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        if self.feed.cancelled():
            raise _CancelledError

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = self._measure(trainer, pl_module)
        if not math.isfinite(metrics.val_loss) or not math.isfinite(metrics.train_loss_as_trained):
            self._stop(trainer, "FAIL", f"diverged: val_loss={metrics.val_loss} after epoch {metrics.epoch + 1}")
            self.ending.curve.append(metrics)
            return
        if self.keep_best and metrics.val_loss < min((p.val_loss for p in self.ending.curve), default=math.inf):
            self.ending.best_weights = copy.deepcopy(pl_module.state_dict())
        self.ending.curve.append(metrics)
        prune = self.feed.report(self.spec, metrics)
        # A trial at its last epoch has cost all that it can: it is complete, whatever the pruner thinks of it.
        if prune and metrics.epoch + 1 < (trainer.max_epochs or 0):
            self._stop(trainer, "PRUNED", f"pruned after epoch {metrics.epoch + 1}")

    def _measure(self, trainer: Trainer, module: LightningModule) -> EpochMetrics:
        logged = trainer.callback_metrics
        part = evaluate(module, self.part, context=trainer.precision_plugin.val_step_context)
        return EpochMetrics(
            epoch=trainer.current_epoch,
            train_loss=part["val_loss"],
            train_loss_as_trained=float(logged["train_loss"]),
            val_loss=float(logged["val_loss"]),
            train_acc=part.get("val_acc", math.nan),
            val_acc=float(logged.get("val_acc", math.nan)),
        )

    def _stop(self, trainer: Trainer, state: State, reason: str) -> None:
        # Raising here would lose the epoch's metrics; `should_stop` ends the fit cleanly.
        self.ending.state, self.ending.reason = state, reason
        trainer.should_stop = True


class AloneEngine:
    """Trains the trials of a feed one after the other, each by a `lightning.Trainer` of its own.

    Args:
        make_module: Builds a trial's module.
        data: Where batches come from.
        settings: What all trials share.
        checkpoint_path: Where the weights of a trial's best epoch go.
        reason: Why trials train alone.
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
        self._part, self._val = data.train_part_loader(), data.val_dataloader()

    @property
    def description(self) -> str:
        """What trains, where, and why not something faster."""
        where = "cuda" if self.settings.accelerator == "gpu" else "cpu"
        return f"alone on {where}: {self.reason}" if self.reason else f"alone on {where}"

    def run(self, feed: Feed) -> None:
        """Train until the feed has no more trials or is cancelled."""
        while not feed.cancelled() and (spec := feed.ask()) is not None:
            feed.tell(self.train(spec, feed))

    def close(self) -> None:
        """Hold nothing between runs, so do nothing."""

    def train(self, spec: TrialSpec, feed: Feed) -> TrialResult:
        """Train one trial. What goes wrong in it becomes the reason of a failed result."""
        ending, started = _Ending(), time.perf_counter()
        path = self.checkpoint_path(spec)
        try:
            self._fit(spec, feed, ending, path)
        except _CancelledError:
            ending.state, ending.reason = "FAIL", INTERRUPTED
        except RunError:  # what fails is not this trial
            raise
        except torch.cuda.OutOfMemoryError as error:
            torch.cuda.empty_cache()
            ending.state, ending.reason = "FAIL", f"out of memory: {one_line(error)}"
        except Exception as error:
            ending.state, ending.reason = "FAIL", f"{type(error).__name__}: {one_line(error)}"
        seconds = time.perf_counter() - started
        saved = str(path) if path is not None and ending.state == "COMPLETE" else ""
        return TrialResult(spec, ending.state, tuple(ending.curve), seconds, ending.reason, saved)

    def _fit(self, spec: TrialSpec, feed: Feed, ending: _Ending, path: Path | None) -> None:
        module = self.make_module(spec)
        # Lightning's fit leaves the mode as it finds it: a module in eval mode would train without dropout.
        module.train()
        report = _EpochReport(spec, feed, self._part, ending, keep_best=path is not None)
        control = TrialControl(module, spec.rates, self.settings.mask_seed(spec))
        with quiet_lightning(), control.watching(), wrapped_step(module, _controlled(control, module)):
            trainer = self._trainer(report)
            trainer.fit(module, self.data.train_loader(spec.seed), self._val)
        if path is not None and ending.state == "COMPLETE" and ending.best_weights is not None:
            module.load_state_dict(ending.best_weights)
            save_checkpoint(trainer, path)

    def _trainer(self, report: Callback) -> Trainer:
        return Trainer(
            max_epochs=self.settings.max_epochs,
            accelerator=self.settings.accelerator,
            devices=1,
            precision=self.settings.precision,  # type: ignore[arg-type]
            gradient_clip_val=self.settings.gradient_clip,
            callbacks=[report, OwnSigterm()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )


def _controlled(control: TrialControl, module: LightningModule) -> Callable[..., Any]:
    def wrap(training_step: Callable[..., Any]) -> Callable[..., Any]:
        def controlled_step(*args: Any, **kwargs: Any) -> Any:
            with control.training_step(module.global_step):
                return training_step(*args, **kwargs)

        return controlled_step

    return wrap


def save_checkpoint(trainer: Trainer, path: Path) -> None:
    """Write a Lightning checkpoint of the weights alone, whole or not at all.

    Raises:
        RunError: It could not be written.
    """
    try:
        with whole(path) as draft:
            trainer.save_checkpoint(draft, weights_only=True)
    except (OSError, RuntimeError) as error:  # torch's own writer raises the latter on a full disk
        raise RunError(
            f"{path} could not be written ({one_line(error)}): see that there is space, then give the same command "
            "again; it continues from what the study holds"
        ) from error


def one_line(error: BaseException) -> str:
    """Return what an error says, on one line and not too long."""
    return " ".join(str(error).split())[:300]


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's notes for interactive users (devices found, tips, workers) off the terminal."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Our loaders slice tensors in memory: worker processes, which these warnings recommend, would only
        # slow them down. The second comes with any training set of few batches.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*The number of training batches.*")
        # lightning 2.6 uses a form of torch's pytree that torch 2.13 deprecates.
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
