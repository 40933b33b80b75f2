"""Lightning modules as users write them."""

from __future__ import annotations

from typing import Any

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.dropout.user_blocks import Tagger
from tests.dropout.user_nets import Base


class Litten(lightning.LightningModule):
    """Functional dropout, BatchNorm and logging of its own, as a tutorial has it; no dropout module anywhere."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.fc1, self.bn, self.fc2 = nn.Linear(5, width), nn.BatchNorm1d(width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.dropout(F.relu(self.bn(self.fc1(x))), p=0.3, training=self.training))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        logits = self(x)
        self.log_dict({"val_loss": F.cross_entropy(logits, y), "val_acc": (logits.argmax(-1) == y).float().mean()})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class LittenMore(Litten):
    """The subclass of a subclass, which drops in its step as well and returns a dict."""

    def training_step(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:  # type: ignore[override]
        x, y = batch
        logits = self(F.dropout(x, 0.1, self.training))
        self.log("train_loss", F.cross_entropy(logits, y))
        return {"loss": F.cross_entropy(logits, y), "logits": logits}


class Adversarial(Litten):
    """Two networks that learn against each other, with manual optimisation as Lightning's manual has it."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(2, 5), nn.Dropout(0.1))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:  # type: ignore[override]
        generating, judging = self.optimizers()  # type: ignore[misc]
        self.toggle_optimizer(generating)
        generating.zero_grad()
        self.manual_backward(self(self.generator(batch[0][:, :2])).mean())
        self.clip_gradients(generating, 0.5, "norm")
        generating.step()
        self.untoggle_optimizer(generating)

        def closure() -> Tensor:
            judging.zero_grad()
            loss = F.cross_entropy(self(batch[0]), batch[1])
            self.manual_backward(loss)
            return loss

        judging.step(closure)
        self.lr_schedulers().step()  # type: ignore[union-attr]

    def configure_optimizers(self) -> Any:
        judging = torch.optim.SGD([*self.fc1.parameters(), *self.fc2.parameters()], lr=0.1)
        optimizers = [torch.optim.Adam(self.generator.parameters()), judging]
        return optimizers, [torch.optim.lr_scheduler.StepLR(judging, 1)]


class Watching(Litten):
    """Logs the learning rate that its optimiser has."""

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        return super().training_step(batch, batch_idx)


class Frozen(Litten):
    """A pretrained backbone that stays frozen and in eval mode, whatever `train()` says."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Base(5)
        self.backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.backbone(x))


class DictTagger(lightning.LightningModule):
    """Takes a dict of tensors, sentences of different lengths in it, and asks its Trainer for the epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.tagger = Tagger()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        logits = self.tagger(batch["words"], batch["lengths"])
        tags = batch["tags"][:, : logits.shape[1]]
        loss = F.cross_entropy(logits.transpose(1, 2), tags, ignore_index=0)
        self.log("train_loss", loss * (1 if self.trainer.max_epochs else 0), batch_size=len(tags))
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        logits = self.tagger(batch["words"], batch["lengths"])
        tags = batch["tags"][:, : logits.shape[1]]
        self.log("val_loss", F.cross_entropy(logits.transpose(1, 2), tags, ignore_index=0), batch_size=len(tags))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def pytorch_lightning_net() -> nn.Module:
    """A module of the other package name under which Lightning is installed."""
    import pytorch_lightning as pl

    class OtherName(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Dropout(0.2), nn.Linear(4, 3))

        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            loss = F.cross_entropy(self.net(batch[0]), batch[1])
            self.log("train_loss", loss)
            return loss

    return OtherName()
