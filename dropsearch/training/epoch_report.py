"""The report of a sequential trial's epochs to its feed, and what the trial leaves at its end."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning import LightningModule, Trainer

from dropsearch.core.global_state import seeded
from dropsearch.core.records import EpochMetrics, State, TrialSpec
from dropsearch.datasets.user_data import PART_COST, PART_SHARE
from dropsearch.datasets.user_loaders import Batches, Combined, each_loader
from dropsearch.dropout.trial_control import TRAINING_PART, TrialControl
from dropsearch.training.adapters.learning_rate import UsedSettings
from dropsearch.training.adapters.validation_copy import ValidationAside
from dropsearch.training.controlled_trial import controlled_copy
from dropsearch.training.epoch_metrics import LoggedMetrics, diverged, epoch_metrics
from dropsearch.training.logged_steps import evaluate, runs_aside
from dropsearch.training.protocols import Feed, TrainerSettings


@dataclass
class Ending:
    """The state of a trial's end, filled in while it runs."""

    state: State = "COMPLETE"
    reason: str = ""
    curve: list[EpochMetrics] = field(default_factory=list)
    losses: list[torch.Tensor] = field(default_factory=list)
    """Losses of the epoch's batches so far, as returned by `training_step`."""
    validated_weights: dict[str, Any] | None = None
    best_weights: dict[str, Any] | None = None
    sha256: str = ""
    """Checksum of the checkpoint, if one was written."""
    used: UsedSettings = field(default_factory=UsedSettings)


class CancelledTrialError(Exception):
    """The feed was cancelled in the middle of an epoch."""


class EpochReport(LoggedMetrics):
    """Reports each epoch to the feed and stops the trial if the feed prunes it."""

    def __init__(
        self,
        control: TrialControl,
        spec: TrialSpec,
        feed: Feed | Again,
        data: Any,
        part: Any,
        ending: Ending,
        keep_best: bool,
        settings: TrainerSettings,
    ) -> None:
        super().__init__()
        self.control, self.spec, self.feed, self.data, self.part = control, spec, feed, data, part
        self.ending, self.keep_best, self.settings = ending, keep_best, settings
        self._aside: ValidationAside | None = None

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the validated weights, before callbacks and modules that validate averaged ones restore the others."""
        if self.keep_best and not trainer.sanity_checking:
            self.ending.validated_weights = copy.deepcopy(pl_module.state_dict())

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """End the trial if its feed was cancelled."""
        if self.feed.cancelled():
            raise CancelledTrialError

    def at_epoch_end(self, module: LightningModule, own: Callable[..., Any], *args: Any) -> Any:
        """Run the module's hook, then report the epoch with the metrics logged there."""
        answer = own(*args)
        self._report(module.trainer, module)
        return answer

    def _report(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.enable_validation and not self.validated:
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
        batches, every = training_part(trainer, self.data, self.part, self.settings.batch_seed(self.spec))
        is_due = self.settings.measures_part(self.spec, every, trainer.current_epoch, self.ending.curve)
        part = self._measure_part(trainer, module, batches) if is_due else {}
        as_trained = float(torch.stack(losses).double().mean()) if losses else float(logged.get("train_loss", math.nan))
        losses.clear()
        val, elsewhere = self.validation, self.elsewhere(logged)
        elsewhere |= _logged_by_hand(trainer, {*val, *elsewhere})
        if runs_aside(module):
            elsewhere = {}  # such a step logs its loss, which has its own field
        return epoch_metrics(trainer.current_epoch, as_trained, part, val, self.settings.monitor, elsewhere)

    def _measure_part(self, trainer: Trainer, module: LightningModule, batches: Any) -> dict[str, float]:
        controlled = lambda twin: controlled_copy(twin, self.control)  # noqa: E731
        # steps and loaders draw random numbers, which must not affect training
        with self.control.evaluating(TRAINING_PART), seeded(self.spec.seed):
            if runs_aside(module) and not getattr(self.data, "changes_batches", False):
                return evaluate(module, batches, context=trainer.precision_plugin.val_step_context)
            self._aside = self._aside or ValidationAside(batches)
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


class Again:
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


def training_part(trainer: Any, data: Any, whole: Any, seed: int) -> tuple[Any, int]:
    """Return the batches that measure the train loss, and in how many epochs of a search they are measured once.

    If the Trainer limits the batches of an epoch, they are an eighth of those of the trial's first epoch, since the
    trial may never train on others; measuring them takes about a twentieth of the steps of training, as elsewhere.
    """
    if isinstance(trainer.limit_train_batches, float) and trainer.limit_train_batches == 1.0:
        return whole, getattr(data, "part_every", 1)
    trained = max(trainer.num_training_batches, 1)
    validated = next(iter(trainer.num_val_batches), math.inf)
    count = int(max(min(trained // PART_SHARE, validated), 1))
    in_order = trainer.overfit_batches > 0  # Lightning shuffles no training batches then

    def first(part: Any) -> Iterator[Any]:
        loader = part if in_order else data.train_loader(seed)
        return itertools.islice(loader if each_loader(loader) == [loader] else Combined(loader), count)

    def begun(part: Any) -> Batches:
        return Batches(lambda: first(part))

    batches = [begun(each) for each in whole] if isinstance(whole, list) else begun(whole)
    return batches, math.ceil(PART_COST * count / trained)
