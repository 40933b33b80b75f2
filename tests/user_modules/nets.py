"""LightningModules as users write them: nothing here knows dropsearch."""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn
from torchmetrics.classification import MulticlassF1Score


class LitNet(LightningModule):
    """Functional dropout and a module, a BatchNorm by argument, its own names for what it logs."""

    def __init__(self, width: int = 12, lr: float = 1e-3, norm: str = "none") -> None:
        super().__init__()
        self.save_hyperparameters()
        self.first = nn.Linear(64, width)
        self.norm = nn.BatchNorm1d(width) if norm == "batch" else nn.Identity()
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.dropout(F.relu(self.norm(self.first(x.flatten(1)))), 0.3, self.training)
        return self.last(self.drop(hidden))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        logits = self(x)
        self.log("val_loss", F.cross_entropy(logits, y), prog_bar=True)
        self.log("val_acc", (logits.argmax(1) == y).float().mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)


class Deeper(LitNet):
    """A subclass that hands its arguments on."""

    def __init__(self, extra: int = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.between = nn.Sequential(nn.Linear(self.hparams.width, self.hparams.width), nn.ReLU(), nn.Dropout(0.2))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.drop(F.relu(self.first(x.flatten(1))))))


class Tested(LitNet):
    """With a test step of its own."""

    def test_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        logits = self(x)
        self.log_dict({"test_loss": F.cross_entropy(logits, y), "test_acc": (logits.argmax(1) == y).float().mean()})


class BadlyTested(LitNet):
    """With a test step that raises."""

    def test_step(self, batch: Any, batch_idx: int) -> None:
        raise KeyError("no such table")


class BadlyTestedLater(LitNet):
    """With a test step that raises at the second batch."""

    def test_step(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == 1:
            raise KeyError("no such table")
        self.log("test_loss", 0.5)


class Scored(LightningModule):
    """A metric object, outputs kept until the end of the epoch, no learning rate among its arguments."""

    def __init__(self, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone = backbone or nn.Linear(64, 12)
        self.head = nn.Sequential(nn.ReLU(), nn.Dropout(0.1), nn.Linear(12, 10))
        self.f1 = MulticlassF1Score(10)
        self.outputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x.flatten(1)))

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        x, y = batch
        return {"loss": F.cross_entropy(self(x), y)}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        logits = self(x)
        self.f1.update(logits, y)
        self.outputs.append(F.cross_entropy(logits, y))

    def on_validation_epoch_end(self) -> None:
        self.log("valid/f1", self.f1.compute())
        self.log("valid/loss", torch.stack(self.outputs).mean())
        self.f1.reset()
        self.outputs.clear()

    def configure_optimizers(self) -> Any:
        decayed = {"params": list(self.backbone.parameters()), "lr": 1e-3, "weight_decay": 0.01}
        bare = {"params": list(self.head.parameters()), "lr": 1e-2, "weight_decay": 0.0}
        optimizer = torch.optim.SGD([decayed, bare], momentum=0.9)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)}


class Wanting(Scored):
    """Cannot be built without an argument."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__(backbone)


class Normed(LitNet):
    """With BatchNorm of its own."""

    def __init__(self, width: int = 12) -> None:
        super().__init__(width, norm="batch")


class Steep(LitNet):
    """With momentum, and groups of its own."""

    def configure_optimizers(self) -> Any:
        groups = [{"params": self.first.parameters()}, {"params": self.last.parameters(), "weight_decay": 0.0}]
        return torch.optim.SGD(groups, lr=self.hparams.lr, momentum=0.8, weight_decay=1e-4)


class Manual(LitNet):
    """Manual optimisation with two optimisers."""

    def __init__(self, width: int = 12) -> None:
        super().__init__(width)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.first, self.last)]


class Wordless(Manual):
    """Manual optimisation that shows its loss to nobody."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        F.cross_entropy(self(x), y).backward()


class TwoOptimizers(LitNet):
    """Two optimisers, each with a learning rate of its own; never trained like this."""

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.first, self.last)]


class Warming(LitNet):
    """Asks for the epoch in its step."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * min(1.0, 0.5 + self.current_epoch)


class Showing(LitNet):
    """Logs the learning rate that its Trainer's optimiser has."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        return super().training_step(batch, batch_idx)


class Counting(LitNet):
    """Uses the number of the batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss if batch_idx % 2 == 0 else 2 * loss


class Keeping(LitNet):
    """Keeps its losses."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.losses.append(float(loss.detach()))
        return loss


class Hooked(LitNet):
    """Does something at the end of an epoch."""

    def on_train_epoch_end(self) -> None:
        self.norm.eval()


class Exits(LitNet):
    """Ends the program when it is built."""

    def __init__(self) -> None:
        super().__init__()
        sys.exit(3)


class ExitsInTraining(LitNet):
    """Ends the program in its first step."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        sys.exit(4)


class Broken(LitNet):
    """Cannot be built."""

    def __init__(self) -> None:
        super().__init__()
        raise ValueError("no such table")


class Stepwise(LitNet):
    """Logs each validation step, and no epoch."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("val_loss", F.cross_entropy(self(x), y), on_step=True, on_epoch=False)


class Untrained(LitNet):
    """Has no optimiser."""

    def configure_optimizers(self) -> None:
        return None


class Nan(LitNet):
    """Measures what is no number."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", torch.tensor(float("nan")))


class Bare(LitNet):
    """Has no dropout."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.first(x.flatten(1))))
