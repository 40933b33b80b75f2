"""A module with several parameter groups and a warm-up that steps with the optimiser."""

from __future__ import annotations

from typing import Any

import torch

from tests.user_modules.nets import LitNet


class Grouped(LitNet):
    """Two groups of different learning rates and weight decays; a warm-up every second step, a decay every epoch."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr, norm="batch")

    def configure_optimizers(self) -> Any:
        rate = self.hparams["lr"]
        groups = [
            {"params": [*self.first.parameters(), *self.norm.parameters()], "lr": rate, "weight_decay": 0.1},
            {"params": self.last.parameters(), "lr": 3 * rate, "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups)
        warming = torch.optim.lr_scheduler.LinearLR(optimizer, 0.2, total_iters=5)
        falling = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
        steps = {"scheduler": warming, "interval": "step", "frequency": 2}
        return [optimizer], [steps, {"scheduler": falling, "interval": "epoch"}]
