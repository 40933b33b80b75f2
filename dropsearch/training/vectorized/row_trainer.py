"""The Trainer seen by the module of a row, and inside a step of several rows, with its optimizer and schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.trainer.states import RunningStage, TrainerFn, TrainerState, TrainerStatus
from torch import Tensor
from torch.optim import Optimizer

from dropsearch.core.errors import UnsupportedError
from dropsearch.training.trainers import batches_in
from dropsearch.training.vectorized.step_traits import Attribute, NotLoadedError

_FIXED = {
    "barebones": False, "callbacks": (), "check_val_every_n_epoch": 1,
    "checkpoint_callback": None, "ckpt_path": None, "early_stopping_callback": None, "enable_validation": True,
    "fast_dev_run": False, "global_rank": 0, "is_global_zero": True, "local_rank": 0, "log_every_n_steps": 50,
    "logger": None, "loggers": (), "node_rank": 0, "num_devices": 1, "num_nodes": 1, "num_sanity_val_steps": 0,
    "predicting": False, "sanity_checking": False, "should_stop": False, "testing": False, "world_size": 1,
}  # fmt: skip
"""Attributes that are the same in every trial's Trainer."""
CLOCK = frozenset({"current_epoch", "global_step"})
"""Attributes that differ between rows but are the same for rows in the same epoch."""


class RowTrainer:
    """Provides the Trainer attributes that a module may use; any other access raises an error that names it."""

    def __init__(self, trainer: Any, module: Any, data: Any, loader: Any) -> None:
        vars(self).update(
            _FIXED,
            accumulate_grad_batches=trainer.accumulate_grad_batches,
            max_epochs=trainer.max_epochs,
            min_epochs=trainer.min_epochs,
            precision=trainer.precision,
            estimated_stepping_batches=trainer.estimated_stepping_batches,
            num_training_batches=batches_in(loader),
            train_dataloader=loader,
            strategy=SingleDeviceStrategy(trainer.strategy.root_device),  # `self.all_gather` asks it, for one process
            gradient_clip_val=trainer.gradient_clip_val,
            datamodule=getattr(data, "datamodule", None),
            model=module,
            lightning_module=module,
            _metrics={},
            _log=None,
        )
        self.now(
            current_epoch=0, global_step=0, optimizers=[], lr_scheduler_configs=[], training=True, validating=False
        )

    @property
    def state(self) -> TrainerState:
        """The current state of the Trainer."""
        stage = RunningStage.VALIDATING if self.validating else RunningStage.TRAINING
        return TrainerState(TrainerStatus.RUNNING, TrainerFn.FITTING, stage)

    @property
    def callback_metrics(self) -> dict[str, Tensor]:
        """Logged metrics by name."""
        found: dict[str, float] = vars(self)["_metrics"] | (self._log.values() if self._log is not None else {})
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in found.items()}

    logged_metrics = callback_metrics

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise UnsupportedError(f"the module reads trainer.{name}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise UnsupportedError(f"the module sets trainer.{name}")

    def now(self, **facts: Any) -> None:
        """Set attributes that change during a trial: epoch, step, optimizers, or whether it validates."""
        vars(self).update(facts)
        if "optimizers" in facts:
            self.strategy.optimizers = facts["optimizers"]  # what `self.optimizers()` of a module returns

    def take(self, metrics: dict[str, float]) -> None:
        """Store logged metrics."""
        vars(self)["_metrics"].update(metrics)


RATES: Attribute = ((), "optimizers()")
"""Stands for the options of optimizers and schedules among the attributes of a row."""

Rates = dict[str, Any]


def rates_of(trainer: Any) -> Rates:
    """Return the options of the parameter groups, and the last learning rates of each schedule, of a row's Trainer."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    return {
        "groups": [{name: value for name, value in group.items() if name != "params"} for group in groups],
        "last": [list(config.scheduler.get_last_lr()) for config in trainer.lr_scheduler_configs],
    }


class StepOptimizer:
    """The optimizer inside a step of several rows; `read` returns the rates."""

    def __init__(self, read: Callable[[], Rates]) -> None:
        self._read = read

    @property
    def __class__(self) -> type[Any]:  # type: ignore[override]  # code asks for its type
        return Optimizer

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The options of each group, without its parameters."""
        return [_Options(group) for group in self._read()["groups"]]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _of_rows(f"reads optimizer.{name}")


class StepSchedule:
    """A schedule inside a step of several rows; `read` returns the rates."""

    def __init__(self, read: Callable[[], Rates], index: int) -> None:
        self._read, self._index = read, index

    @property
    def scheduler(self) -> StepSchedule:
        """The schedule, as Lightning's configuration of it has it."""
        return self

    def get_last_lr(self) -> list[Any]:
        """Return the learning rate of each group."""
        return self._read()["last"][self._index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _of_rows(f"reads scheduler.{name}")


class _Options(dict[str, Any]):
    """Options that a step reads and does not change, without the parameters."""

    def __missing__(self, name: str) -> Any:
        raise _of_rows(f"reads {name} of a parameter group")

    def get(self, name: str, default: Any = None) -> Any:
        """Return an option, or the default if there is none of the name."""
        return self[name] if name == "params" else super().get(name, default)

    def __setitem__(self, name: str, value: Any) -> None:
        raise _of_rows(f"sets {name} of a parameter group")

    def _refused(self, *_: Any, **__: Any) -> Any:
        raise _of_rows("changes a parameter group")

    __ior__ = __delitem__ = update = setdefault = pop = popitem = clear = _refused  # type: ignore[assignment]


def _of_rows(what: str) -> UnsupportedError:
    return UnsupportedError(f"a step {what}, which differs between trials")


class StepTrainer:
    """The Trainer inside a step of several rows; what differs between these rows raises an error that names it."""

    def __init__(self, trainer: RowTrainer) -> None:
        self._trainer = trainer
        self.step = "training_step"
        self.has_read_clock = False
        self.has_read_rates = False
        self.rates: Rates | None = None
        """What the step may read of optimizers and schedules; None if it is not loaded."""

    def attach(self, module: Any) -> None:
        """Become the Trainer of a module, whose optimizer and schedules are those of a step."""
        module.trainer = self
        vars(module).update(optimizers=lambda *_, **__: self.optimizers[0], lr_schedulers=self._schedules)

    @property
    def optimizers(self) -> list[StepOptimizer]:
        """The optimizer of the rows."""
        return [StepOptimizer(self._read)]

    @property
    def lr_scheduler_configs(self) -> list[StepSchedule]:
        """The schedules of the rows."""
        return [StepSchedule(self._read, index) for index in range(len(self._read()["last"]))]

    def _schedules(self) -> Any:
        found = self.lr_scheduler_configs
        return found if len(found) > 1 else found[0] if found else None

    def _read(self) -> Rates:
        self.has_read_rates = True
        if not self._trainer.optimizers:
            raise UnsupportedError(f"{self.step} reads trainer.optimizers, which differs between trials")
        if self.rates is None:
            raise NotLoadedError(RATES)
        return self.rates

    def __getattr__(self, name: str) -> Any:
        if name in ("callback_metrics", "logged_metrics"):
            raise UnsupportedError(f"{self.step} reads trainer.{name}, which differs between trials")
        if name in CLOCK:
            self.has_read_clock = True
        return getattr(self._trainer, name)

    def enter(self, step: str) -> None:
        """Set the name of the next step."""
        self.step = step
        self._trainer.now(training=step == "training_step", validating=step != "training_step")

    def now(self, **facts: Any) -> None:
        """Set the epoch and step of the rows of the next step."""
        self._trainer.now(**facts)
