"""Modules with metric objects, hooks and outputs that are kept, as users write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule, seed_everything
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torchmetrics import MaxMetric, MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from tests.user_modules.nets import LitNet


class Template(LightningModule):
    """In the style of lightning-hydra-template: the net and what builds the optimizer are hyperparameters."""

    def __init__(
        self,
        lr: float = 1e-3,
        net: Callable[[], nn.Module] | None = None,
        optimizer: Callable[..., Any] = torch.optim.Adam,
        scheduler: Callable[..., Any] | None = torch.optim.lr_scheduler.ReduceLROnPlateau,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False, ignore=["net"])
        self.net = net() if net else nn.Sequential(nn.Linear(64, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 10))
        self.criterion = nn.CrossEntropyLoss()
        self.train_acc, self.val_acc = MulticlassAccuracy(10), MulticlassAccuracy(10)
        self.train_loss, self.val_loss = MeanMetric(), MeanMetric()
        self.val_acc_best = MaxMetric()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.flatten(1))

    def on_train_start(self) -> None:
        self.val_loss.reset()
        self.val_acc.reset()
        self.val_acc_best.reset()

    def model_step(self, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        x, y = batch
        logits = self.forward(x)
        return self.criterion(logits, y), torch.argmax(logits, dim=1), y

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss, predicted, targets = self.model_step(batch)
        self.train_loss(loss)
        self.train_acc(predicted, targets)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def on_train_epoch_end(self) -> None:
        pass

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        loss, predicted, targets = self.model_step(batch)
        self.val_loss(loss)
        self.val_acc(predicted, targets)
        self.log("val/loss", self.val_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("val/acc", self.val_acc, on_step=False, on_epoch=True, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        self.val_acc_best(self.val_acc.compute())
        self.log("val/acc_best", self.val_acc_best.compute(), sync_dist=True, prog_bar=True)

    def setup(self, stage: str) -> None:
        if self.hparams.compile and stage == "fit":
            self.net = torch.compile(self.net)

    def configure_optimizers(self) -> Any:
        optimizer = self.hparams.optimizer(params=self.trainer.model.parameters(), lr=self.hparams.lr)
        if self.hparams.scheduler is None:
            return {"optimizer": optimizer}
        scheduler = self.hparams.scheduler(optimizer=optimizer, patience=0, threshold=0.5, factor=0.3)
        plateau = {"scheduler": scheduler, "monitor": "val/loss", "interval": "epoch", "frequency": 1}
        return {"optimizer": optimizer, "lr_scheduler": plateau}


class Collected(LitNet):
    """A collection of metrics, logged as a whole, and a metric whose value in a step is logged."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        scores = MetricCollection({"acc": MulticlassAccuracy(10), "f1": MulticlassF1Score(10)})
        self.scores, self.running = scores.clone(prefix="val_"), MeanMetric()
        self.trained = scores.clone(prefix="train_")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.log_dict(self.trained(self(batch[0]).detach(), batch[1]))
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        logits = self(x)
        self.scores.update(logits, y)
        self.log_dict(self.scores)
        self.log("val_running", self.running(logits.mean()))
        self.log("val_loss", F.cross_entropy(logits, y))
        self.log("val_worst", F.cross_entropy(logits, y), reduce_fx="max")


class Outputs(LitNet):
    """Gathers the outputs of steps in lists, keeps the last one, and logs at the end of an epoch."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.training_step_outputs: list[Tensor] = []
        self.validation_step_outputs: list[dict[str, Tensor]] = []
        self.last_loss: Tensor | None = None
        self.history: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        loss = super().training_step(batch, batch_idx)
        self.training_step_outputs.append(loss.detach())
        self.last_loss = loss.detach()
        return {"loss": loss}

    def on_train_epoch_end(self) -> None:
        mean = torch.stack(self.training_step_outputs).mean()
        self.history.append(float(mean))
        self.log("train_mean", mean)
        assert len(self.training_step_outputs) == self.trainer.num_training_batches
        self.training_step_outputs.clear()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        logits = self(x)
        self.validation_step_outputs.append({"logits": logits, "y": y})

    def on_validation_epoch_end(self) -> None:
        logits = torch.cat([each["logits"] for each in self.validation_step_outputs])
        y = torch.cat([each["y"] for each in self.validation_step_outputs])
        self.log("val_loss", F.cross_entropy(logits, y))
        self.log("val_last", 0.0 if self.last_loss is None else self.last_loss)
        self.log("val_epochs", float(len(self.history) + self.current_epoch))
        self.validation_step_outputs.clear()


class MeasuredLoss(LitNet):
    """Trains on the value of a metric object."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.mean = MeanMetric()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.mean(super().training_step(batch, batch_idx)) * 2


class Warming(LitNet):
    """Weighs its loss by the epoch, the step and the number of the batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        weight = min(1.0, 0.4 + 0.3 * self.current_epoch) + 0.01 * self.global_step
        return super().training_step(batch, batch_idx) * weight * (2 if batch_idx % 2 else 1)


class Numbers(LitNet):
    """Logs numbers that it makes of tensors, sums and extremes."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("train/number", loss.item())
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        logits = self(x)
        self.log("val_loss", F.cross_entropy(logits, y).item())
        self.log("val_sum", logits.sum(), reduce_fx="sum")
        self.log("val_least", logits.min(), on_step=True, on_epoch=True, reduce_fx=torch.min)
        self.log("val_weighed", logits.mean(), batch_size=3 + batch_idx)


class Seeding(LitNet):
    """Seeds all generators in hooks, and adds noise in its steps."""

    def on_fit_start(self) -> None:
        torch.manual_seed(1)

    def on_train_epoch_start(self) -> None:
        seed_everything(1, verbose=False)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return super().training_step((x + 0.1 * torch.randn_like(x), y), batch_idx)


class SeedingAndDrawing(LitNet):
    """Seeds a generator in a hook, and draws from it."""

    def on_train_epoch_end(self) -> None:
        torch.manual_seed(1)
        self.log("drawn", torch.rand(()))


class Created(LitNet):
    """Creates tensors of the default dtype in its forward, and multiplies them with others of its weights' dtype."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + F.linear(torch.full((len(x), 64), 0.1), self.last.weight.new_ones(64, 64)))


class Gathering(LitNet):
    """Collects losses of several processes, as if there were any, and asks how they are distributed."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.losses: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.losses.append(super().training_step(batch, batch_idx))
        self.log("train/spread", self.losses[-1].detach() * 2, sync_dist=isinstance(self.trainer.strategy, DDPStrategy))
        return self.losses[-1]

    def on_train_epoch_end(self) -> None:
        gathered = self.all_gather(torch.stack(self.losses).detach())
        self.log("train/gathered", self.trainer.strategy.reduce(gathered.mean()))
        self.losses.clear()


class Teaching(LitNet):
    """Has a slow copy of its first layer, which a step moves by operations on lists of tensors, and learns from it."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.slow = nn.Linear(64, 12).requires_grad_(False)
        nn.init.zeros_(self.slow.bias)  # the same in every trial at its start

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        with torch.no_grad():
            slow, fast = list(self.slow.parameters()), list(self.first.parameters())
            torch._foreach_mul_(slow, 0.9)
            torch._foreach_add_(slow, fast, alpha=0.1)
            size = sum(torch._foreach_norm(slow))
        x = batch[0].flatten(1)
        self.log("train/size", size)
        return super().training_step(batch, batch_idx) + F.mse_loss(self.first(x), self.slow(x))


class Weighing(LitNet):
    """Logs with tensors as batch sizes, in steps and in a hook."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("train/weighed", loss, on_epoch=True, batch_size=(batch[1] > 4).sum())
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.log("val_weighed", self(batch[0]).mean().item(), batch_size=(batch[1] > 4).sum())

    def on_validation_epoch_end(self) -> None:
        self.log("val_last", self.last.bias.sum(), batch_size=torch.tensor(3))


class Validating(LitNet):
    """Validates by its training step."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss" if self.training else "val_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.training_step(batch, batch_idx)


class Masking(LitNet):
    """Fills tensors where a mask says so: with a number, with values of each place, and by a part of an index."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.first(x.flatten(1)))
        least = hidden.mean(1)
        least[least < least.median()] = 0.5
        scaled = hidden * least[:, None]
        scaled[scaled > 1] = scaled[scaled > 1].sqrt()
        scaled[:, 0][x.flatten(1)[:, 3] > 0.2] = 0.0
        return self.last(self.drop(F.dropout(scaled, 0.3, self.training)))


class Unfreezing(LitNet):
    """Trains its first layer from the second epoch on."""

    def on_train_epoch_start(self) -> None:
        self.first.requires_grad_(self.current_epoch > 0)


class Asking(LitNet):
    """Asks for its learning rate in a step."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        return super().training_step(batch, batch_idx)


class Stopping(LitNet):
    """Ends its training by itself."""

    def on_validation_epoch_end(self) -> None:
        self.trainer.should_stop = True


class Popping(LitNet):
    """Keeps the last two losses in a list."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.kept = [torch.zeros(()), torch.ones(())]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.kept.pop(0)
        self.kept.append(loss.detach())
        return loss


class Remembering(LitNet):
    """Uses in a step what the step before has kept."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.mean = torch.zeros(())

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        loss = F.cross_entropy(self(x), y)
        self.mean = 0.9 * self.mean.to(loss) + 0.1 * loss
        self.log("val_loss", self.mean)


class Uncounted(LitNet):
    """Has steps that take a batch and nothing else."""

    def training_step(self, batch: Any) -> Tensor:
        return super().training_step(batch, 0)

    def validation_step(self, batch: Any) -> None:
        super().validation_step(batch, 0)
