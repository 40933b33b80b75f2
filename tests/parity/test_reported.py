"""What public reports say of hooks, loops and logging: the same in a trial, in sequence and in a row."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torchmetrics import MeanSquaredError, MetricCollection, R2Score

from tests.parity.census import Case, Cell, compare, compare_rows


class EMA(Cell):
    """Keeps a running average of its weights in buffers, and validates with them."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.register_buffer("slow", self.last.weight.detach().clone())
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.slow.lerp_(self.last.weight.detach(), 0.2)
        self.count += 1

    def on_validation_start(self) -> None:
        self.kept = self.last.weight.detach().clone()
        self.last.weight.data.copy_(self.slow)

    def on_validation_end(self) -> None:
        self.last.weight.data.copy_(self.kept)


class Scaled(Cell):
    """Scales its loss by a buffer that each step writes: a loss balanced by its running size."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.register_buffer("size", torch.ones(()))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.size.mul_(0.9).add_(0.1 * loss.detach())
        return loss / self.size


class Bounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


class Parametrized(Cell):
    """Has bounded, orthogonal and normed weights."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        parametrize.register_parametrization(self.first, "weight", Bounded())
        self.middle = parametrizations.orthogonal(nn.Linear(8, 8))
        self.last = parametrizations.weight_norm(self.last)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(self.middle(torch.tanh(self.first(x)))))


class TiedLinear(Cell):
    """Ties the weight of two layers by assignment, as a language model does."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.back = nn.Linear(6, 8, bias=False)
        self.back.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(torch.tanh(self.first(x)) + self.back(x)))


class Collected(Cell):
    """Logs a collection of metrics by one call, and one metric in both steps."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.train_metrics = MetricCollection([MeanSquaredError(), R2Score()], prefix="train/")
        self.val_metrics = self.train_metrics.clone(prefix="val/")

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        made = self(batch[0])
        self.log_dict(self.train_metrics(made, batch[1]))
        self.train_metrics.reset()
        return F.mse_loss(made, batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        made = self(batch[0])
        self.val_metrics.update(made, batch[1])
        self.log("val_loss", F.mse_loss(made, batch[1]), on_epoch=True, prog_bar=True)

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.val_metrics.compute())
        self.val_metrics.reset()


class Varied(Cell):
    """Logs in every way."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.log("a/loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        self.log("last", loss, on_step=True, on_epoch=False)
        self.log("whole", 3)
        self.log("batch", float(batch_idx), on_step=False, on_epoch=True)
        self.log("sum", loss, reduce_fx="sum", on_step=False, on_epoch=True)
        self.log("min", loss, reduce_fx=torch.min, on_step=False, on_epoch=True)
        self.log_dict({"b": loss * 2, "c": loss.detach() + 1}, on_step=False, on_epoch=True, batch_size=1)
        self.log("weight", self.last.weight.norm(), rank_zero_only=True, sync_dist=True)
        return {"loss": loss, "log": {"x": 1}}

    def on_train_epoch_end(self) -> None:
        self.log("end", float(self.current_epoch) + 0.5)
        self.log("steps", float(self.global_step))

    def on_train_epoch_start(self) -> None:
        self.log("start", float(self.current_epoch))

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        loss = self.loss(batch)
        self.log("val_loss", loss, add_dataloader_idx=False)
        self.log("val_max", loss, reduce_fx="max")
        return {"val_loss": loss}


class Sometimes(Cell):
    """Skips batches with a large loss, by None."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        return None if loss > 4.5 else loss


class Toggled(Cell):
    """Optimizes by hand with toggled optimizers, closures and schedules by name."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            self.toggle_optimizer(optimizer)
            loss = self.loss(batch)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.untoggle_optimizer(optimizer)
        for schedule in self.lr_schedulers():  # type: ignore[union-attr]
            schedule.step()
        self.log("loss", loss, prog_bar=True)

    def configure_optimizers(self) -> Any:
        one, other = torch.optim.SGD(self.first.parameters(), 0.1), torch.optim.Adam(self.last.parameters(), 0.01)
        step = torch.optim.lr_scheduler.ExponentialLR
        return (
            {"optimizer": one, "lr_scheduler": {"scheduler": step(one, 0.9), "name": "one"}},
            {"optimizer": other, "lr_scheduler": {"scheduler": step(other, 0.8), "name": "other"}},
        )


class Saved(Cell):
    """Has something of its own in checkpoints, and callbacks of its own."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.extra = 0

    def on_train_epoch_end(self) -> None:
        self.extra += 1

    def on_save_checkpoint(self, checkpoint: Any) -> None:
        checkpoint["extra"] = self.extra

    def on_load_checkpoint(self, checkpoint: Any) -> None:
        self.extra = checkpoint["extra"]

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        found = super().state_dict(*args, **kwargs)
        found["extra_state"] = torch.tensor(float(self.extra))
        return found

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        return super().load_state_dict({k: v for k, v in state_dict.items() if k != "extra_state"}, *args, **kwargs)


class Ordered(Cell):
    """Keeps in which order its hooks are called, and acts on it."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.seen: list[str] = []

    def on_before_zero_grad(self, optimizer: Any) -> None:
        self.seen.append("zero")

    def on_after_backward(self) -> None:
        self.seen.append("backward")

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        assert self.seen[-2:] == ["zero", "backward"]
        self.log("norm", torch.stack([p.grad.norm() for p in self.parameters() if p.grad is not None]).norm())


class Accumulated(Cell):
    """Keeps a list of its training losses and a dict of lists by class."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.losses: list[Tensor] = []
        self.by_kind: dict[str, list[Tensor]] = {"train": [], "val": []}

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.losses.append(loss.detach())
        self.by_kind["train"].append(loss.detach())
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        loss = self.loss(batch)
        self.by_kind["val"].append(loss)
        self.log("val_loss", loss)

    def on_train_epoch_end(self) -> None:
        self.log("all", torch.stack(self.losses).mean())
        self.log("gap", torch.stack(self.by_kind["val"]).mean() - torch.stack(self.by_kind["train"]).mean())


class Inverse(Cell):
    """Warms up by a scheduler with an interval, a frequency and a name, and logs its learning rate."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), 0.02, weight_decay=0.1, amsgrad=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 6))
        return [optimizer], [{"scheduler": schedule, "interval": "step", "frequency": 2, "name": "warm"}]

    def on_train_batch_end(self, *_: Any) -> None:  # type: ignore[override]
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])


class Frozen(Cell):
    """Trains a part only, in eval mode, with statistics that stay."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.body = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)).requires_grad_(False)

    def on_train_start(self) -> None:
        self.body.eval()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.body(x))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(filter(lambda p: p.requires_grad, self.parameters()), 0.1, momentum=0.9, nesterov=True)


REASONS = {
    Sometimes: "does not return a loss",
    Toggled: "manual optimization",
    Accumulated: "a step changes self.by_kind by changing a container that it holds",
    Frozen: "on_train_start changes the mode",
}
"""Why some train in sequence only."""
KINDS = [EMA, Scaled, Parametrized, TiedLinear, Collected, Varied, Saved, Ordered, Inverse, *REASONS]


@pytest.mark.parametrize("kind", KINDS)
def test_in_sequence(kind: Any) -> None:
    compare(Case(kind, rates=(0.0,) if kind is Toggled else (0.0, 0.5)))  # Toggled drops twice in a step


@pytest.mark.parametrize("kind", KINDS)
def test_in_a_row(kind: Any) -> None:
    compare_rows(Case(kind), REASONS.get(kind, ""))
