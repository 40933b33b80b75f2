"""Modules that do in their steps and hooks what public packages do."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from lightning import LightningDataModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchmetrics import Metric
from torchmetrics.functional import accuracy, mean_absolute_error

from tests.user_modules.nets import LitNet


class WeightedError(Metric):
    """A loss that is a metric: it adds to its states in place, and has a buffer."""

    is_differentiable = True
    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weights", torch.linspace(0.5, 1.5, 10))
        self.add_state("total", default=torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", default=torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits: Tensor, targets: Tensor) -> None:
        mask = targets.isfinite()
        self.total += (F.cross_entropy(logits, targets, weight=self.weights.to(logits), reduction="none") * mask).sum()
        self.count += mask.sum()

    def compute(self) -> Tensor:
        return self.total / self.count


class MetricLoss(LitNet):
    """Its loss is a metric object, which it logs as well."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.criterion, self.measured = WeightedError(), WeightedError()

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        loss = self.criterion(self(batch[0]), batch[1])
        self.log("train_loss", self.criterion, on_epoch=True)
        return {"loss": loss, "size": len(batch[0])}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.measured(self(batch[0]), batch[1])
        self.log("val_loss", self.measured)


class ScaledError(WeightedError):
    """A metric that a step prepares for its batch (pytorch-forecasting's distribution losses)."""

    factor: Any

    def prepare(self, factor: Any, name: str) -> None:
        self.factor, self.name = factor, name

    def update(self, logits: Tensor, targets: Tensor) -> None:
        assert self.name == "scaled"
        super().update(logits * self.factor, targets)


class PreparedLoss(MetricLoss):
    """Prepares its loss in each step, and notes something on it afterwards."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.criterion = ScaledError()

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        self.criterion.prepare(1 + batch[0].mean(), "scaled")
        result = super().training_step(batch, batch_idx)
        self.criterion.seen = batch_idx + 1
        return result

    def on_train_epoch_end(self) -> None:
        assert self.criterion.seen == self.trainer.num_training_batches


class OwnLog(LitNet):
    """It overrides `log`, and asks its Trainer for the stage."""

    def log(self, name: str, value: Any, **options: Any) -> None:
        super().log(f"{self.trainer.state.stage.value[:3]}_{name}".replace("tra_", "train_"), value, **options)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        logits = self(batch[0])
        assert self.trainer.state.stage in ("validate", "sanity_check")
        super().log_dict({"val_loss_sum": logits.sum()})
        super().log("val_loss", F.cross_entropy(logits, batch[1]))


class BatchHooks(LitNet):
    """Hooks of batches that change gradients and parameters, keep an average, and gather outputs."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.register_buffer("average", torch.zeros(()))
        self.logits: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        logits = self(batch[0])
        return {"loss": F.cross_entropy(logits, batch[1]), "logits": logits.detach()}

    def validation_step(self, batch: Any, batch_idx: int) -> Tensor:
        logits = self(batch[0])
        self.log("val_loss", F.cross_entropy(logits, batch[1]))
        return logits

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.log("first", batch[0].mean())

    def on_after_backward(self) -> None:
        for parameter in self.parameters():
            parameter.grad.mul_(0.5 + 0.5 * (self.global_step % 2))

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        optimizer.param_groups[0]["params"][0].grad.clamp_(-0.01, 0.01)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        with torch.no_grad():
            self.first.weight.clamp_(-0.1, 0.1)
            self.average += 0.1 * (outputs["logits"].mean() + batch[1].double().mean() + outputs["loss"])

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.logits.append(outputs)

    def on_validation_epoch_end(self) -> None:
        self.log("spread", torch.cat(self.logits).std() + self.average)
        self.logits.clear()


class Branching(LitNet):
    """Takes one way or another by the values of its batch and of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(self.first(x))
        if x.mean() > 0.305:  # some batches
            hidden = hidden * 1.5
        if hidden.mean() > self.first.weight.abs().mean() * float(hidden.detach().std()):
            hidden = hidden + 0.1
        return self.last(self.drop(hidden))


class BranchingOnStatistics(Branching):
    """Its statistics are updated before it branches."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.normed = nn.BatchNorm1d(64)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.normed(x.flatten(1)))


class FunctionalMetrics(LitNet):
    """Calls functions of torchmetrics, which look at their arguments."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        logits = self(batch[0])
        score = accuracy(logits.argmax(1), batch[1], task="multiclass", num_classes=10, average="macro")
        self.log_dict({"val_loss": F.cross_entropy(logits, batch[1]), "score": 100 * score.double()})

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        logits = self(batch[0])
        score = accuracy(logits.argmax(1), batch[1], task="multiclass", num_classes=10, average="macro")
        self.log("train_score", torch.stack([score]).sum(), on_epoch=True, on_step=False)
        return F.cross_entropy(logits, batch[1]) + 0.1 * mean_absolute_error(logits, logits.detach() * 0)


class BranchingLater(LitNet):
    """It calls a function of torchmetrics, and branches after its first epoch, when its statistics are updated."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.normed = nn.BatchNorm1d(64)

    def forward(self, x: Tensor) -> Tensor:
        x = self.normed(x.flatten(1))
        if self.current_epoch and self.training and self.first(x).mean() > self.last.bias.mean():
            x = 1.5 * x
        return super().forward(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        logits = self(batch[0])
        return F.cross_entropy(logits, batch[1]) + 0.1 * mean_absolute_error(logits, logits.detach() * 0)


class PartlyEvaluating(LitNet):
    """A part of it stays in training mode when it is validated."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.normed = nn.BatchNorm1d(64, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.normed(x.flatten(1)) if self.normed.training else x)

    def on_validation_model_eval(self) -> None:
        self.eval()
        self.normed.train()


class _Reversed(torch.autograd.Function):
    """The identity, whose gradient has the other sign; written as most are, without a batching rule."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return -ctx.factor * gradient, None


reverse = _Reversed.apply


class GradientReversal(LitNet):
    """Trains its first layer against a second head."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.domain = nn.Linear(64, 2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        features = reverse(self.first.weight.sum(0) + batch[0].flatten(1), 0.3)
        return super().training_step(batch, batch_idx) + F.cross_entropy(self.domain(features), batch[1] % 2)


class Packed(LitNet):
    """Packs its sequences, whose lengths differ, for an LSTM."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.rnn = nn.LSTM(8, 64, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(len(x), 8, 8)
        lengths = (rows.abs().sum((1, 2)) > 18).long() * 3 + 5
        packed = nn.utils.rnn.pack_padded_sequence(rows, lengths.cpu(), batch_first=True, enforce_sorted=False)
        padded, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=8)
        return super().forward(padded.sum(1))


class PackedAndDropping(Packed):
    """The LSTM drops between its layers."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.rnn = nn.LSTM(8, 64, 2, batch_first=True, dropout=0.2)


class Selecting(LitNet):
    """Trains on those examples of a batch that it selects, whose number differs."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        losses = F.cross_entropy(self(x), y, reduction="none")
        hard = losses[losses > losses.mean()]
        self.log("hard", float(len(hard)))
        return hard.mean() + 0.1 * losses[y < 5].sum() / len(losses)


class KeptAttention(LitNet):
    """Fills a tensor in place, keeps it in a list that has a place for it, and keeps an array of it."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.weights: list[Any] = [None]
        self.importance: Any = None

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(len(x), 12, device=x.device)
        total += self.first(x.flatten(1)).abs()
        total[:, 0] = x.flatten(1).sum(1)
        self.weights[0] = total
        self.importance = total.mean(0).detach().cpu().numpy()
        return super().forward(x) + total[:, :10]

    def on_validation_epoch_end(self) -> None:
        self.log("importance", float(self.importance.sum()) + self.weights[0].mean())


class Rotating(LitNet):
    """Fills repeated matrices in place, as geometric augmentation does (kornia)."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        matrices = torch.eye(2)[None].repeat(len(x), 1, 1)
        angle = x.flatten(1).mean(1)
        matrices[:, 0, 1] = angle
        matrices[:, 1, 0] *= angle
        scale = torch.tensor([1.0, 1.0])
        scale[1] = self.first.bias.mean()
        turned = (x.flatten(1).reshape(len(x), 2, -1).transpose(1, 2) @ matrices * scale).transpose(1, 2)
        return F.cross_entropy(self(turned.reshape(x.shape)), y)


class CachingBuffer(LitNet):
    """Keeps a table in a buffer that its first step adds (the positions of x-transformers)."""

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "table"):
            self.register_buffer("table", torch.linspace(0, 0.1, 10, dtype=x.dtype), persistent=False)
        return super().forward(x) + self.table


class BuiltInHooks(LitNet):
    """Its layers are built in `setup`, by what the data module knows, and in `configure_model`."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        del self.first, self.last

    def setup(self, stage: str) -> None:
        width = 12 if isinstance(self.trainer.datamodule, LightningDataModule) else 0  # type: ignore[attr-defined]
        self.first = nn.Linear(64, width)
        self.noise = torch.randn(width)

    def configure_model(self) -> None:
        if not hasattr(self, "last"):
            self.last = nn.Linear(self.first.out_features, 10)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.noise[:10].to(x)


class Queued(LitNet):
    """Keys of a momentum encoder in a queue with a pointer, written through `.data` and slices (He et al. 2020)."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.slow = nn.Linear(64, 12)
        self.slow.requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(12, 48), dim=0))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.long))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = batch[0].flatten(1)
        with torch.no_grad():
            for slow, quick in zip(self.slow.parameters(), self.first.parameters(), strict=True):
                slow.data = 0.9 * slow.data + 0.1 * quick.data
            keys = F.normalize(self.slow(x)[:8], dim=1)
        loss = -(F.normalize(self.first(x), dim=1) @ self.queue.clone()).logsumexp(1).mean()
        at = int(self.pointer)
        self.queue[:, at : at + 8] = keys.T
        self.pointer[0] = (at + 8) % 48
        column = torch.randint(0, 4, (1,)).item()
        return super().training_step(batch, batch_idx) + 0.1 * loss + x[:, column : column + 4].mean() * 0


class Codebook(LitNet):
    """A codebook that follows averages of the batches, through `.data`; logs the same name in both steps."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.register_buffer("codes", torch.randn(16, 12))
        self.register_buffer("sums", self.codes.clone())

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.drop(F.relu(self.first(x.flatten(1))))
        chosen = F.one_hot(torch.cdist(hidden, self.codes).argmin(1), 16).to(hidden)
        self.log("used", chosen.amax(0).mean())
        if self.training:
            self.sums.data.mul_(0.9).add_((chosen.T @ hidden).detach(), alpha=0.1)
            self.codes.data.copy_(self.sums / (chosen.sum(0)[:, None] + 1))
        return self.last(hidden + (chosen @ self.codes - hidden).detach())


class Penalized(LitNet):
    """Takes gradients of its outputs, in both steps, and attacks its inputs; its layer is normalized with `out=`."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.last = nn.utils.spectral_norm(self.last)

    def slope(self, x: Tensor) -> Tensor:
        x.requires_grad_()
        (slope,) = torch.autograd.grad(self.last(torch.tanh(self.first(x))).sum(), x, create_graph=True)
        return slope.square().mean()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = batch[0].flatten(1).clone()
        x.requires_grad = True
        worse = torch.autograd.grad(F.cross_entropy(self(x), batch[1]), x)[0].sign()
        loss = super().training_step((x.detach() + 0.1 * worse, batch[1]), batch_idx)
        return loss + self.slope(batch[0].flatten(1))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        with torch.enable_grad():
            self.log("slope", self.slope(batch[0].flatten(1)))


class Renormalized(LitNet):
    """Sets weights of its own layer in each pass."""

    def forward(self, x: Tensor) -> Tensor:
        self.first.weight.data = F.normalize(self.first.weight.data)
        return super().forward(x)


class Carrying(LitNet):
    """Its steps use what earlier steps kept: a state, an average, a count, a weight in a dict, and more later."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.cell = nn.GRUCell(64, 12)
        self.state: Tensor | None = None
        self.average, self.steps = 0.0, 0
        self.weights: dict[str, float] = {}

    def on_train_epoch_start(self) -> None:
        self.state = None

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = batch[0].flatten(1)
        if self.state is None or len(self.state) != len(x):
            self.state = torch.zeros(len(x), 12, dtype=x.dtype)
        hidden = self.cell(x, self.state)
        self.state = hidden.detach()
        loss = F.cross_entropy(self(x) + self.last(hidden), batch[1])
        self.average = 0.9 * self.average + 0.1 * loss.item()
        self.steps += 1
        self.weights.update({"kl": min(1.0, self.steps / 5)})
        if self.steps == 3:
            self.late = loss.detach()
        return loss * self.weights["kl"] / (1 + self.average) + (self.late if self.steps > 3 else 0)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]) * self.weights.get("kl", 0))


class Scheduling(LitNet):
    """Its hooks set what its steps use: a weight by epoch, a temperature by batch, and whether it has improved."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.temperature, self.best, self.has_improved = 1.0, float("inf"), True

    def on_train_epoch_start(self) -> None:
        self.weight = 0.3 * (self.current_epoch + 1)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.temperature *= 0.9

    def on_validation_epoch_end(self) -> None:
        value = float(self.trainer.callback_metrics["val_loss"])
        self.has_improved, self.best = value < self.best, min(value, self.best)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch[0]) / self.temperature, batch[1])
        return self.weight * (loss if self.has_improved else 0.5 * loss)


def drop_path(x: Tensor, drop_prob: float, training: bool) -> Tensor:
    """Drop whole examples, as timm's function of this name does."""
    if not training or drop_prob == 0:
        return x
    return x * x.new_empty(len(x), 1).bernoulli_(1 - drop_prob) / (1 - drop_prob)


class Filling(LitNet):
    """Fills its batches, and tensors that it derives from them; recomputes a part; branches beside stochastic depth."""

    def hidden(self, x: Tensor) -> Tensor:
        hidden = checkpoint(lambda x: self.drop(F.relu(self.first(x))), x, use_reentrant=False)
        if hidden.mean() > self.last.bias.mean() + 0.2:
            hidden = 0.5 * hidden
        return hidden + drop_path(hidden, 0.2, self.training)

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.arange(10) * 0.1
        bias += torch.full_like(bias, 0.5)
        scaled = x * 2
        scaled[:, :12] = self.hidden(x)
        return self.last(self.hidden(scaled)) + bias

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        column = int(torch.randint(0, 40, (1,)))
        x[:, column : column + 8] = x[torch.randperm(len(x)), column : column + 8]
        return F.cross_entropy(self(x), y)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        x[:, :4] = self.first(x)[:, :4]
        x += self.first.bias.mean()
        self.log("val_loss", F.cross_entropy(self(x), y))


class Sampling(LitNet):
    """Draws its noise in a hook of each epoch, and samples after a validation."""

    def on_train_epoch_start(self) -> None:
        self.noise = float(torch.rand(())) + np.random.rand() + random.random()

    def on_validation_epoch_end(self) -> None:
        self.log("sampled", self.first(torch.randn(4, 64, dtype=self.dtype)).mean())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * self.noise


class InArrays(LitNet):
    """Computes a score with NumPy in its validation step."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        logits = self(batch[0])
        self.log("val_loss", F.cross_entropy(logits, batch[1]))
        found, wanted = logits.argmax(1).cpu().numpy(), batch[1].cpu().numpy()
        self.log("hits", np.mean(found == wanted) + np.sqrt(logits.std().item()))


class Augmenting(LitNet):
    """Augments its batches on their way, in training by random numbers (as in a tutorial of kornia)."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        self.scale = 1 + float(torch.rand(()))

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0] * self.scale, batch[1]

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        x, y = batch
        return (x + torch.randn_like(x) * torch.rand(()) if self.trainer.training else x - 0.1), y

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.training_step(batch, batch_idx=batch_idx) + batch[0].mean())


EACH = (
    MetricLoss, PreparedLoss, OwnLog, BatchHooks, Branching, BranchingOnStatistics, FunctionalMetrics, BranchingLater,
    PartlyEvaluating, GradientReversal, KeptAttention, Packed, Selecting, Queued,
    Codebook, Penalized, Renormalized, InArrays, Carrying, Scheduling, Filling, Sampling, Rotating, BuiltInHooks,
    CachingBuffer,
)  # fmt: skip
