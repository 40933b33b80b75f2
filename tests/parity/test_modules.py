"""Modules of every structure train in a trial as under plain Lightning."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningModule
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torchmetrics import MeanAbsoluteError, MeanMetric, MetricCollection, R2Score

from dropsearch.dropout.trial_control import TrialControl
from tests.parity.census import Case, Cell, compare


class Inner(LightningModule):
    """A LightningModule inside another."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * (1.1 if self.training else 1.0)


class Nested(Cell):
    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.last = Inner()  # type: ignore[assignment]


class Tied(Cell):
    """Shares a weight between its first and its middle layer."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.back = nn.Linear(8, 6, bias=False)
        self.back.weight = nn.Parameter(self.first.weight.detach().T.clone())
        self.again = nn.Linear(6, 8)
        self.again.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(torch.tanh(self.first(x)))
        return self.last(torch.tanh(self.again(self.back(h))))


class Normed(Cell):
    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.first = parametrizations.weight_norm(self.first)
        self.last = parametrizations.spectral_norm(self.last)


class Batched(Cell):
    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.first = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8))  # type: ignore[assignment]


class Buffered(Cell):
    """Updates a buffer in its forward, and keeps a count beside it."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
            self.scratch += 1
        return super().forward(x - self.mean) / (1 + self.calls / 100)


class Lazy(Cell):
    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.first = nn.LazyLinear(8)  # type: ignore[assignment]

    def setup(self, stage: str) -> None:
        self(torch.zeros(1, 6))


class Compiled(Cell):
    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.first = torch.compile(self.first, backend="eager")  # type: ignore[assignment]


class CompiledForward(Cell):
    """Compiles a forward that drops."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.forward = torch.compile(self.forward, backend="eager")  # type: ignore[method-assign]


class CompilesLater(Cell):
    """Compiles a part that drops when it is set up, another in its first step, and itself in its second epoch."""

    def setup(self, stage: str) -> None:
        self.drop.compile(backend="eager")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0 and self.current_epoch == 0:
            self.first = torch.compile(self.first, backend="eager")  # type: ignore[assignment]
        if batch_idx == 0 and self.current_epoch == 1:
            self.forward = torch.compile(self.forward, backend="eager")  # type: ignore[method-assign]


class Noisy(Cell):
    """Draws random numbers in its steps."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        return self.loss((x + 0.1 * torch.randn_like(x), y))


class Drawing(Noisy):
    """Draws random numbers in its validation too, which a trial runs once more than plain Lightning."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch) + 0.1 * torch.rand(()), batch_size=len(batch[0]))


class Mixed(Cell):
    """Mixes the examples of a batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        share, order = torch.distributions.Beta(0.4, 0.4).sample(), torch.randperm(len(x))
        return share * self.loss((x, y)) + (1 - share) * self.loss((x, y[order]))


class Teacher(Cell):
    """Trains against a copy of itself that follows slowly."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.teacher = nn.Linear(6, 8).requires_grad_(False)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(batch) + F.mse_loss(self.first(batch[0]), self.teacher(batch[0]))

    def on_train_batch_end(self, *_: Any) -> None:  # type: ignore[override]
        with torch.no_grad():
            for slow, fast in zip(self.teacher.parameters(), self.first.parameters(), strict=True):
                slow.lerp_(fast, 0.1)


class Moving(Cell):
    """Changes its batches on their way."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0] * 2, batch[1]

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        return super().transfer_batch_to_device((batch[0], batch[1] / 2), device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0] + (0.5 if self.trainer.training else 0.0), batch[1]


class Asking(Cell):
    """Uses what its Trainer knows."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        t = self.trainer
        known = (t.training, t.validating, t.state.stage, t.state.fn, t.num_val_batches, t.precision, t.world_size)
        assert known == (True, False, "train", "fit", [1], "64-true", 1)
        held = (
            t.optimizers[0],
            t.strategy.root_device,
            t.model,
            t.train_dataloader,
            t.fit_loop.epoch_loop,
            self.device,
        )
        assert all(each is not None for each in held)
        share = (t.global_step + 1) / t.estimated_stepping_batches + t.current_epoch / (t.max_epochs or 1)
        share += t.num_training_batches / 100 + float(t.callback_metrics.get("val_loss", 0.0)) / 10
        return self.loss(batch) * (1 + share) * (0.5 if t.is_last_batch else 1.0)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        assert self.trainer.validating or self.trainer.sanity_checking
        self.log("val_loss", self.loss(batch) + self.global_step / 100, batch_size=len(batch[0]))
        self.log("hp_metric", float(self.current_epoch))


class Configuring(Cell):
    def configure_callbacks(self) -> Any:
        return [EarlyStopping("val_loss", patience=0, min_delta=9.0)]


class Measuring(Cell):
    """Logs metric objects of every kind."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.error, self.mean = MeanAbsoluteError(), MeanMetric()
        self.several = MetricCollection({"mae": MeanAbsoluteError(), "r2": R2Score()}, prefix="train_")
        self.val = self.several.clone(prefix="val_")

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        made = self(batch[0])
        loss = F.mse_loss(made, batch[1])
        self.mean(loss)
        self.several.update(made, batch[1])
        self.log("train_mean", self.mean, on_step=True, on_epoch=True)
        self.log("count", torch.tensor(len(made)), reduce_fx="sum", on_step=False, on_epoch=True)
        self.log("largest", loss, reduce_fx=torch.max, on_step=False, on_epoch=True)
        self.log("smallest", loss, reduce_fx="min", on_step=False, on_epoch=True)
        return loss

    def on_train_epoch_end(self) -> None:
        self.log_dict(self.several.compute())
        self.several.reset()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        made = self(batch[0])
        self.error(made, batch[1])
        self.log("val_mae_object", self.error)
        self.log_dict(self.val(made, batch[1]), on_step=True, on_epoch=True)
        self.log("val_loss", F.mse_loss(made, batch[1]), batch_size=3)
        self.log("val_count", len(made), reduce_fx="sum")


class Gathering(Cell):
    """Keeps outputs and computes its metric at the end of the validation."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.outputs: list[Tensor] = []

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.outputs.append(self.loss(batch))

    def on_validation_epoch_end(self) -> None:
        self.log("val_loss", torch.stack(self.outputs).mean() * (1 + len(self.outputs)))
        self.outputs.clear()


class Recurrent(Cell):
    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.rnn = nn.GRU(1, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(self.rnn(x[:, :, None])[0][:, -1]))


class Attending(Cell):
    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.embed = nn.Linear(1, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(self.block(self.embed(x[:, :, None])).mean(1)))


class Hyper(Cell):
    def __init__(self, p: float = 0.5, width: int = 8, **more: Any) -> None:
        super().__init__(p)
        self.save_hyperparameters()
        self.example_input_array = torch.zeros(2, 6)
        self.strict_loading = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(batch) * self.hparams.width / 8  # type: ignore[union-attr]


class Switching(Cell):
    """Puts a part of itself into eval mode, and itself at each epoch."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.norm = nn.BatchNorm1d(6)

    def on_train_epoch_start(self) -> None:
        self.norm.eval()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.norm(x))


class Growing(Cell):
    """Grows by a layer in its second epoch."""

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 1:
            self.more = nn.Linear(6, 6)
            nn.init.eye_(self.more.weight)
            nn.init.zeros_(self.more.bias)  # what a hook draws is a function of the seed, the hook and the epoch
            self.optimizers().optimizer.add_param_group({"params": self.more.parameters(), "lr": 0.01})  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.more(x) if hasattr(self, "more") else x)


class Counting(Cell):
    """Its hooks act on what they count."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.register_buffer("calls", torch.zeros(()))

    def on_validation_model_eval(self) -> None:
        self.calls += 1
        super().on_validation_model_eval()

    def on_validation_model_train(self) -> None:
        self.calls += 10
        super().on_validation_model_train()

    def on_fit_end(self) -> None:
        self.calls += 100

    def teardown(self, stage: str) -> None:
        self.calls += 1000

    def on_train_end(self) -> None:
        self.calls += 10_000


class Sampled(Cell):
    """A variational autoencoder: draws by hand and by a distribution."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.spread = nn.Linear(6, 8)

    def forward(self, x: Tensor) -> Tensor:
        mean, log_spread = self.first(x), self.spread(x)
        z = mean + torch.randn_like(mean) * log_spread.exp() if self.training else mean
        return self.last(self.drop(torch.tanh(z)))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        spread = torch.distributions.Normal(self.first(batch[0]), self.spread(batch[0]).exp())
        return self.loss(batch) + 0.01 * spread.rsample().square().mean()


KINDS = [
    Nested, Tied, Normed, Batched, Buffered, Lazy, Compiled, CompiledForward, CompilesLater, Noisy, Drawing, Mixed,
    Teacher, Moving, Asking, Configuring, Measuring, Gathering, Recurrent, Attending, Hyper, Switching, Growing,
    Counting, Sampled,
]  # fmt: skip


PROGRAM = """
import sys

import torch
from torch import nn

from dropsearch._compat.torch_modes import as_it_is_written
from dropsearch.dropout.trial_control import TrialControl

assert "torch._dynamo" not in sys.modules
model = nn.Sequential(nn.Dropout(0.5))
control = TrialControl(model, {"0._orig_mod": 1.0}, 1)
with as_it_is_written(), control.whole_trial():
    model[0] = torch.compile(model[0], backend="eager")
    for step in range(4):
        with control.training_step(step):
            assert not model(torch.ones(8)).any()
compiled = torch.compile(lambda x: x + 1, backend="eager")
assert compiled(torch.ones(1)) == 2
"""


@pytest.mark.slow
def test_the_first_compilation_of_a_process_may_be_in_a_trial() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=300)


DRAWING = (Noisy, Drawing, Mixed, Sampled)
"""Modules whose steps draw: PyTorch draws on both sides here; `test_random_numbers.py` compares keyed draws."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_structure(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind in DRAWING:
        monkeypatch.setattr(TrialControl.__init__, "__kwdefaults__", {"off": False, "keys": False})
    compare(Case(kind, rates=(0.0,) if kind is Mixed else (0.0, 0.5)))  # it drops twice in a step
