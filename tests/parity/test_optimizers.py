"""Optimizers, schedules and the hooks around them do in a trial what they do under plain Lightning."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import LBFGS, SGD, Adam, AdamW
from torch.optim import lr_scheduler as schedules

from tests.parity.census import Case, Cell, compare


class Manual(Cell):
    """Two optimizers by hand, gradients accumulated over two batches, clipped, and a schedule."""

    automatic_optimization = False

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        first, last = self.optimizers()  # type: ignore[misc]
        self.manual_backward(self.loss(batch) / 2)
        if batch_idx % 2:
            for optimizer in (first, last):
                self.clip_gradients(optimizer, gradient_clip_val=0.1, gradient_clip_algorithm="norm")
                optimizer.step()
                optimizer.zero_grad()
        if self.trainer.is_last_batch:
            self.lr_schedulers().step()  # type: ignore[union-attr]

    def configure_optimizers(self) -> Any:
        first, last = SGD(self.first.parameters(), self.lr), Adam(self.last.parameters(), self.lr)
        return [first, last], [schedules.StepLR(first, 1, 0.5)]


class Adversarial(Cell):
    """Generator and discriminator, toggled."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.automatic_optimization = False
        self.judge = nn.Linear(1, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        g, d = self.optimizers()  # type: ignore[misc]
        self.toggle_optimizer(g)
        made = self(batch[0])
        fooled = F.softplus(-self.judge(made)).mean() + F.mse_loss(made, batch[1])
        g.zero_grad()
        self.manual_backward(fooled)
        g.step()
        self.untoggle_optimizer(g)
        self.toggle_optimizer(d)
        judged = F.softplus(-self.judge(batch[1])).mean() + F.softplus(self.judge(made.detach())).mean()
        d.zero_grad()
        self.manual_backward(judged)
        d.step()
        self.untoggle_optimizer(d)
        self.log_dict({"g_loss": fooled, "d_loss": judged}, on_step=False, on_epoch=True)
        return {"loss": fooled}

    def configure_optimizers(self) -> Any:
        mine = [*self.first.parameters(), *self.last.parameters()]
        return Adam(mine, 0.01), Adam(self.judge.parameters(), 0.02)


class Quasi(Cell):
    """LBFGS, which calls its closure several times a step."""

    def configure_optimizers(self) -> Any:
        return LBFGS(self.parameters(), lr=0.1, max_iter=3)


class ManualQuasi(Cell):
    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self.loss(batch)
            self.manual_backward(loss)
            return loss

        optimizer.step(closure=closure)

    def configure_optimizers(self) -> Any:
        return LBFGS(self.parameters(), lr=0.1, max_iter=2)


def two_schedules(optimizer: Any) -> tuple[Any, Any]:
    return schedules.ConstantLR(optimizer), schedules.ExponentialLR(optimizer, 0.9)


def plateau(optimizer: Any) -> Any:
    return schedules.ReduceLROnPlateau(optimizer, patience=0, threshold=9.0)


def scheduled(make: Any, interval: str = "step", **more: Any) -> type[Cell]:
    class Scheduled(Cell):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = self.loss(batch)
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            return loss

        def configure_optimizers(self) -> Any:
            optimizer = SGD(self.parameters(), self.lr, momentum=0.9)
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": make(optimizer), "interval": interval, **more},
            }

    return Scheduled


class OwnStep(Cell):
    """Warms up in `optimizer_step`."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        optimizer.step(closure=optimizer_closure)
        for group in optimizer.param_groups:
            group["lr"] = self.lr * min(1.0, (self.trainer.global_step + 1) / 6)


class OwnBackward(Cell):
    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        (2 * loss).backward()

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        optimizer.zero_grad(set_to_none=False)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(0.5)

    def on_after_backward(self) -> None:
        self.log("gradient", self.first.weight.grad.norm())  # type: ignore[union-attr]


class OwnClipping(Cell):
    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        self.clip_gradients(
            optimizer, gradient_clip_val=(gradient_clip_val or 1.0) / 2, gradient_clip_algorithm="value"
        )


class OwnSchedule(Cell):
    def configure_optimizers(self) -> Any:
        optimizer = SGD(self.parameters(), self.lr)
        return [optimizer], [
            schedules.ExponentialLR(optimizer, 0.7),
            {"scheduler": schedules.LambdaLR(optimizer, lambda e: 1.0), "name": "flat"},
        ]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        if self.current_epoch:
            scheduler.step()


class Skipping(Cell):
    """Returns no loss for some batches."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx == 1 else self.loss(batch)


class Mapped(Cell):
    """Returns more than its loss, and uses it in hooks."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.seen: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        made = self(batch[0])
        return {"loss": F.mse_loss(made, batch[1]), "made": made.detach(), "count": len(made)}

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.seen.append(outputs["made"].mean() * outputs["count"])

    def on_train_epoch_end(self) -> None:
        self.log("made", torch.stack(self.seen).mean())
        self.seen.clear()


class Unoptimized(Cell):
    def configure_optimizers(self) -> None:
        return None


class Groups(Cell):
    def configure_optimizers(self) -> Any:
        decayed = {"params": [self.first.weight, self.last.weight], "weight_decay": 0.1}
        rest = {"params": [self.first.bias, self.last.bias], "weight_decay": 0.0, "lr": 0.01}
        return AdamW([decayed, rest], lr=0.02, betas=(0.8, 0.9))


class Alternating(Cell):
    """Frequencies by hand: the second optimizer steps every third batch, with gradient penalties."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        one, other = self.optimizers()  # type: ignore[misc]
        x = batch[0].clone().requires_grad_()
        loss = F.mse_loss(self(x), batch[1])
        (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        optimizer = other if batch_idx % 3 == 2 else one
        optimizer.zero_grad()
        self.manual_backward(loss + slope.square().sum())
        optimizer.step()

    def configure_optimizers(self) -> Any:
        return SGD(self.first.parameters(), self.lr), SGD(self.last.parameters(), self.lr)


MODULES: dict[str, Any] = {
    "manual": Manual, "adversarial": Adversarial, "alternating": Alternating, "own step": OwnStep,
    "own backward": OwnBackward, "own schedule": OwnSchedule, "own clipping": OwnClipping, "skipping": Skipping,
    "mapped": Mapped, "unoptimized": Unoptimized, "groups": Groups,
    "warm-up": scheduled(lambda o: schedules.LambdaLR(o, lambda step: min(1.0, (step + 1) / 5))),
    "one cycle": scheduled(lambda o: schedules.OneCycleLR(o, 0.2, total_steps=12)),
    "every third step": scheduled(lambda o: schedules.StepLR(o, 1, 0.5), frequency=3),
    "sequential": scheduled(lambda o: schedules.SequentialLR(o, [*two_schedules(o)], [4])),
    "chained": scheduled(lambda o: schedules.ChainedScheduler([*two_schedules(o)])),
    "warm restarts": scheduled(lambda o: schedules.CosineAnnealingWarmRestarts(o, 3)),
    "plateau of the training": scheduled(plateau, "epoch", monitor="train_loss_epoch"),
    "plateau at each step": scheduled(plateau, "step", monitor="train_loss_step"),
    "plateau of the validation": scheduled(plateau, "epoch", monitor="val_loss", frequency=2),
    "no such metric": scheduled(plateau, "epoch", monitor="missing", strict=False),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_an_optimization(name: str) -> None:
    compare(Case(MODULES[name]))


@pytest.mark.parametrize("kind", [Quasi, ManualQuasi])
def test_a_closure(kind: Any) -> None:
    compare(Case(kind, rates=(0.0,)))
