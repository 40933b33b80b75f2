"""What a LightningModule finds around it in a rehearsal: a Trainer without a fit, and optimisers that stand still."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from dropsearch._compat.lightning import package_of, quiet_loggers, trainer_class


class DetachedTrainer:
    """Stands in for a running Trainer, so that a ``training_step`` can be called by itself.

    Args:
        module: A LightningModule. What is put on it here, the rehearsal takes away again.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.losses: list[Tensor] = []
        """What the last step gave to ``manual_backward``."""
        self._trainer: Any = None

    def set_up(self) -> None:
        """Prepare one step."""
        self.losses.clear()
        for part in self.module.modules():
            if package_of(part):  # without a running Trainer, logging would warn or raise
                vars(part).update(log=_say_nothing, log_dict=_say_nothing)
        if vars(self.module).get("_trainer") is None:
            self._trainer = self._trainer or _bare_trainer(self.module)
            self.module.trainer = self._trainer
            self._trainer.training = True  # its `state.stage`, for which steps ask
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
            except Exception:  # most steps never ask for an optimiser, and what this one misses will be told
                return
        for optimizer in (*strategy.optimizers, *strategy._lightning_optimizers):
            optimizer.step = _standing_still(optimizer)

    def _manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        self.losses.append(loss.detach().clone())
        loss.backward(*args, **kwargs)


def _say_nothing(*_: Any, **__: Any) -> None:
    """Stands in for `log` and `log_dict`."""


def _standing_still(optimizer: Any) -> Callable[..., Any]:
    def step(closure: Callable[[], Any] | None = None, **_: Any) -> Any:
        return closure() if closure else None

    # What a schedule looks for, to warn where it moves before the first step of its optimiser.
    vars(step)["_wrapped_by_lr_sched"] = optimizer._opt_called = True
    return step


def _bare_trainer(module: nn.Module) -> Any:
    """Return a Trainer of the package that the module's class comes from, for steps that ask theirs something."""
    with quiet_loggers(logging.ERROR), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its notes are for those who asked for a Trainer
        return trainer_class(package_of(module))(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
