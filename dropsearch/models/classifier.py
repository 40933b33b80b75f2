"""The LightningModule around a network that classifies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from dropsearch.core.errors import InputError, close_match
from dropsearch.models.build import NETS, build_net
from dropsearch.models.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    OptimizerName,
    Schedule,
    build_optimizer,
    schedule_factor,
)


class Classifier(lightning.LightningModule):
    """Trains a network by cross-entropy and measures its accuracy.

    A batch is ``(*inputs, target)``: the network gets the inputs and returns logits `[batch, classes]`, the
    target is int64 `[batch]`. The hyperparameters are plain data: for a network of `NETS` they hold its
    configuration, rates included, so ``Classifier.load_from_checkpoint(path)`` needs nothing else; any other
    network is handed over again, ``Classifier.load_from_checkpoint(path, net=MyNet())``.

    Args:
        net: A network, or the configuration of one (see `build_net`).
        optimizer: adamw, adam or sgd.
        lr: The learning rate of the first epoch (before a warm-up: the highest).
        weight_decay: For weights; biases and norms are not decayed.
        momentum: Of sgd.
        nesterov: Of sgd.
        betas: Of adam and adamw.
        schedule: How the learning rate falls from epoch to epoch over the Trainer's ``max_epochs``: none,
            cosine, step or warmup_cosine (see `schedule_factor`).

    Raises:
        InputError: A name is unknown or a value out of its range.
    """

    def __init__(
        self,
        net: nn.Module | Mapping[str, Any],
        *,
        optimizer: OptimizerName = "adamw",
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.9,
        nesterov: bool = False,
        betas: Sequence[float] = (0.9, 0.999),
        schedule: Schedule = "none",
    ) -> None:
        super().__init__()
        betas = [float(beta) for beta in betas]
        self.save_hyperparameters(ignore=["net"])
        self._check()
        self.net = build_net(net) if isinstance(net, Mapping) else net
        self._remember_net(self.hparams)

    def _check(self) -> None:
        own = self.hparams
        for key, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if own[key] not in known:
                hint = close_match(str(own[key]), known)
                raise InputError(f"{key} must be one of {', '.join(known)}, got {own[key]!r}{hint}")
        _require(own["lr"] > 0, "lr must be above 0", own["lr"])
        _require(own["weight_decay"] >= 0, "weight_decay must be at least 0", own["weight_decay"])
        _require(0 <= own["momentum"] < 1, "momentum must be in [0, 1)", own["momentum"])
        _require(own["momentum"] > 0 or not own["nesterov"], "nesterov needs a momentum above 0", own["momentum"])
        good = len(own["betas"]) == 2 and all(0 <= beta < 1 for beta in own["betas"])
        _require(good, "betas must be two numbers in [0, 1)", own["betas"])

    def _remember_net(self, hparams: Any) -> None:
        # Only our own: a user network may have a `config` that means something else.
        if type(self.net) in NETS.values():
            hparams["net"] = self.net.config

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the network's rates into the checkpoint as they are now, not as they were at first."""
        self._remember_net(checkpoint.get(self.CHECKPOINT_HYPER_PARAMS_KEY, {}))

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return logits `[batch, classes]`."""
        return self.net(*inputs)

    def training_step(self, batch: Sequence[Tensor], batch_idx: int = 0) -> Tensor:
        """Log ``train_loss`` (with dropout on, the epoch's mean) and return the batch's loss in nats."""
        *inputs, target = batch
        loss = F.cross_entropy(self(*inputs), target)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=target.shape[0])
        return loss

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int = 0) -> None:
        """Log ``val_loss`` in nats and ``val_acc`` in [0, 1]."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Sequence[Tensor], batch_idx: int = 0) -> None:
        """Log ``test_loss`` in nats and ``test_acc`` in [0, 1]."""
        self._evaluate(batch, "test")

    def _evaluate(self, batch: Sequence[Tensor], part: str) -> None:
        *inputs, target = batch
        logits = self(*inputs)
        scores = {f"{part}_loss": F.cross_entropy(logits, target), f"{part}_acc": accuracy(logits, target)}
        self.log_dict(scores, on_step=False, on_epoch=True, batch_size=target.shape[0])

    def predict_step(self, batch: Tensor | Sequence[Tensor], batch_idx: int = 0) -> Tensor:
        """Return probabilities `[batch, classes]`; the batch is as in training, or the input alone."""
        inputs = (batch,) if isinstance(batch, Tensor) else batch[:-1] or batch
        return self(*inputs).softmax(-1)

    def configure_optimizers(self) -> Any:
        """Return the optimiser, with its schedule where there is one.

        Raises:
            InputError: A schedule needs the Trainer's ``max_epochs``, and it has none.
        """
        own = dict(self.hparams)
        own.pop("net", None)
        name, schedule = own.pop("optimizer"), own.pop("schedule")
        optimizer = build_optimizer(self, name, **own)
        if schedule == "none":
            return optimizer
        epochs = self.trainer.max_epochs or 0
        if epochs < 1:
            raise InputError(f"schedule={schedule} needs a Trainer with max_epochs, got {self.trainer.max_epochs}")
        scheduler = LambdaLR(optimizer, lambda epoch: schedule_factor(schedule, epoch, epochs))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "epoch"}}


def accuracy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the share of examples whose highest logit is the target's, a scalar tensor in [0, 1]."""
    return (logits.argmax(-1) == target).to(torch.float32).mean()


def _require(holds: bool, rule: str, value: object) -> None:
    if not holds:
        raise InputError(f"{rule}, got {value}")
