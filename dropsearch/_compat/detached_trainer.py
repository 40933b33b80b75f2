"""The Trainer of a dry run: it runs no fit loop, and its optimizers do not step."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor

from dropsearch._compat.lightning import idle_trainer, package_of, quiet_loggers


class DetachedTrainer:
    """Replaces a running Trainer, so that ``training_step`` of a LightningModule can be called directly.

    The dry run removes the attributes that are set on the module here.
    """

    def __init__(self, module: Any, epoch: int = 0) -> None:
        self.module, self._epoch = module, epoch
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
            self._trainer = self._trainer or idle_trainer(package_of(self.module), max_epochs=1)
            self.module.trainer = self._trainer
            self._trainer.fit_loop.epoch_progress.current.completed = self._epoch
            self._trainer.training = True  # sets `state.stage`, which steps may read
            self._give_optimizers()
        if not self.module.automatic_optimization:
            vars(self.module)["manual_backward"] = self._manual_backward

    def _give_optimizers(self) -> None:
        strategy = self._trainer.strategy
        strategy.connect(self.module)
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
