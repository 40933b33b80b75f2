"""The Trainer of a dry run: it runs no fit loop, and its optimizers do not step."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dropsearch._compat.lightning import idle_trainer, package_of, quiet_loggers


@dataclass(frozen=True)
class Fit:
    """What a step reads of the fit that it is a part of."""

    epoch: int = 0
    max_epochs: int = 1
    data: Mapping[str, Any] = field(default_factory=dict)
    """The data arguments of `Trainer.fit`; without any, an epoch consists of the batch of the dry run."""


class _OneBatch:
    def __init__(self, batch: Any) -> None:
        self._batch = batch

    def __iter__(self) -> Iterator[Any]:
        yield self._batch

    def __len__(self) -> int:
        return 1


class DetachedTrainer:
    """Replaces a running Trainer, so that ``training_step`` of a LightningModule can be called directly.

    The dry run removes the attributes that are set on the module here.
    """

    def __init__(self, module: Any, batch: Any, fit: Fit) -> None:
        self.module, self._fit = module, fit
        self._data = fit.data or {"train_dataloaders": _OneBatch(batch)}
        self.losses: list[Tensor] = []
        """Losses that the last step passed to ``manual_backward``."""
        self._trainer: Any = None

    def set_up(self) -> None:
        """Prepare one step."""
        self.losses.clear()
        for part in self.module.modules():
            if package_of(part):  # logging warns or raises without a running Trainer
                vars(part).update(log=_ignore_logging, log_dict=_ignore_logging)
        if vars(self.module).get("_trainer") is None:
            is_new = self._trainer is None
            self._trainer = self._trainer or idle_trainer(package_of(self.module), max_epochs=self._fit.max_epochs)
            self.module.trainer = self._trainer
            self._trainer.fit_loop.epoch_progress.current.completed = self._fit.epoch
            self._trainer.training = True  # sets `state.stage`, which steps may read
            self._trainer.strategy.connect(self.module)
            if is_new:
                self._give_data()
            self._give_optimizers()
        if not self.module.automatic_optimization:
            vars(self.module)["manual_backward"] = self._manual_backward

    def _give_data(self) -> None:
        """Tell the Trainer its loaders, the number of batches and of steps, which schedules in a step may read."""
        with quiet_loggers(logging.ERROR), warnings.catch_warnings(), contextlib.suppress(Exception):
            warnings.simplefilter("ignore")
            self._trainer._data_connector.attach_data(self.module, **self._data)
            self._trainer.fit_loop.setup_data()

    def _give_optimizers(self) -> None:
        strategy = self._trainer.strategy
        with quiet_loggers(logging.ERROR), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                strategy.setup_optimizers(self._trainer)
            except Exception:  # most steps use no optimizer; one that does fails with its own error
                return
        for optimizer in (*strategy.optimizers, *strategy._lightning_optimizers):
            optimizer.step = _without_step(optimizer)

    def _manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        self.losses.append(loss.detach().clone())
        loss.backward(*args, **kwargs)


def _ignore_logging(*_: Any, **__: Any) -> None:
    """Replacement for `log` and `log_dict`."""


def _without_step(optimizer: Any) -> Callable[..., Any]:
    def step(closure: Callable[[], Any] | None = None, **_: Any) -> Any:
        return closure() if closure else None

    # Learning rate schedulers read these attributes and warn if they step before the optimizer.
    vars(step)["_wrapped_by_lr_sched"] = optimizer._opt_called = True
    return step
