"""What training steps and hooks log, and the learning rates that were used: the same vectorized as alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.training.vectorized.laws import Case, assert_law_2, trials
from tests.user_modules.data import Digits
from tests.user_modules.nets import LitNet


class Steps(LitNet):
    """Logs tensors and numbers of its trial in each of Lightning's ways, and warms up step by step."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("last", loss)
        self.log("half", 0.5)
        self.log("lr", self.hparams.lr, on_step=True, on_epoch=True)
        self.log("mean", loss, on_step=False, on_epoch=True, batch_size=7)
        self.log("both", loss * 2, on_step=True, on_epoch=True, prog_bar=True)
        self.log("val_acc", loss, False, False, False, True)
        self.log_dict({"train_loss": loss + 1, "more": loss}, on_epoch=True)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), self.hparams.lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / 4)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Beyond(LitNet):
    """Logs numbers, sums and extremes, in steps and at the end of the epoch, where it also changes its weights."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("path", self.hparams.lr, reduce_fx="sum", on_epoch=True)
        self.log("examples", float(len(batch[0])), reduce_fx="sum", on_step=False, on_epoch=True)
        self.log("worst", loss, reduce_fx=torch.max, on_step=True, on_epoch=True)
        self.log("least", loss, reduce_fx="min", on_epoch=True)
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("bias", self.last.bias.sum())
        with torch.no_grad():
            self.last.bias.mul_(0.5)


class Late(LitNet):
    """Logs what is monitored at the end of the epoch."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.seen = F.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", self.seen)

    def on_train_epoch_end(self) -> None:
        self.log("val_loss", self.seen * 2)


@pytest.mark.parametrize("make", [Steps, Beyond, Late])
def test_logs_and_learning_rates_are_the_same(make: type[LitNet], tmp_path: Path) -> None:
    assert_law_2(Case(make, Digits()), tmp_path)


def test_names_are_lightnings(tmp_path: Path) -> None:
    result = Case(Steps, Digits(), epochs=3).vectorized(trials(1), tmp_path)[0]
    names = {"last", "mean", "both", "both_step", "both_epoch", "training/val_acc", "train_loss"}
    assert names <= {*result.curve[-1].logged}
    assert result.lr_used == pytest.approx((2e-3 / 4, 2e-3 * 9 / 4))
