"""Trials in rows leave what plain Lightning leaves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, RMSprop

from dropsearch.core.global_state import seeded
from dropsearch.core.records import TrialSpec
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.vectorized.row_source import RowSource
from dropsearch.training.vectorized.trials import VectorizedTrials
from tests.parity.census import EPOCHS, Case, Cell, compare_rows
from tests.parity.conftest import SEED, source
from tests.training.conftest import Queue, Waiting

OPTIMIZERS: dict[str, Any] = {
    "adam with decay": lambda p: Adam(p, 0.02, weight_decay=0.1),
    "adamw": lambda p: AdamW(p, 0.02, weight_decay=0.5),
    "sgd with momentum": lambda p: SGD(p, 0.05, momentum=0.9, weight_decay=0.1),
    "rmsprop": lambda p: RMSprop(p, 0.01, weight_decay=0.1),
}


class Unused(Cell):
    """Has parameters that its loss does not use: between used ones, of a layer, and a scalar."""

    optimizer = staticmethod(OPTIMIZERS["adamw"])

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.first = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3))  # type: ignore[assignment]
        self.scale, self.spare = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.ones(3, 4))
        self.middle = nn.Linear(8, 8)

    def hidden(self, x: Tensor) -> Tensor:
        inner: Any = self.first
        return self.middle(inner[0](x))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(torch.tanh(self.hidden(x))))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        unused = sum(p.square().sum() for p in self.parameters())
        self.log("val_loss", self.loss(batch) + unused / 100, batch_size=len(batch[0]))

    def configure_optimizers(self) -> Any:
        return type(self).optimizer(self.parameters())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_a_loss_does_not_use_stays(name: str) -> None:
    compare_rows(Case(type("Unused", (Unused,), {"optimizer": staticmethod(OPTIMIZERS[name])})))


class Sometimes(Unused):
    """Uses a layer in every other batch, and in batches with a large loss."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.odd, self.large = nn.Linear(8, 1), nn.Linear(8, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        h = self.hidden(batch[0])
        loss = self.loss(batch)
        if batch_idx % 2:
            loss = loss + self.odd(h).square().mean()
        if loss > 5:
            loss = loss + self.large(h).square().mean()
        return loss


class Grading(Unused):
    """Changes its gradients in hooks: in place, by others, and by none."""

    def on_after_backward(self) -> None:
        self.last.weight.grad = self.last.weight.grad * 0.5  # type: ignore[operator]
        self.spare.grad = torch.ones_like(self.spare)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        assert self.scale.grad is None
        self.middle.bias.grad = None
        self.last.bias.grad.mul_(2.0)  # type: ignore[union-attr]


@pytest.mark.parametrize("more", [{}, {"accumulate_grad_batches": 2}, {"gradient_clip_val": 0.1}], ids=str)
@pytest.mark.parametrize("kind", [Unused, Sometimes, Grading])
def test_gradients_are_those_of_a_backward(kind: Any, more: Any) -> None:
    compare_rows(Case(kind, lambda: more))


class Late(Cell):
    """Replaces a weight by one of another shape when it is set up."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.first.weight = nn.Parameter(torch.zeros(8, 1))

    def setup(self, stage: str) -> None:
        self.first.weight = nn.Parameter(torch.arange(48.0).view(8, 6) / 48)


def test_a_row_that_is_added_later_is_set_up_first() -> None:
    def make(spec: TrialSpec) -> Late:
        with seeded(spec.seed):
            return Late().double()

    specs = [TrialSpec("dropout", n, SEED + n, {"drop": 0.1 + 0.2 * n}, lr=1e-2, weight_decay=0.0) for n in range(4)]
    found = []
    for feed in (Waiting(specs), Queue(specs)):
        trials = VectorizedTrials(RowSource(make, source(), TrainerSettings(EPOCHS, "cpu", "64-true"), feed), 4)
        trials.fit()
        found.append({n: [p.val_loss for p in result.curve] for n, result in feed.results.items()})
    assert found[0].keys() == found[1].keys() == {0, 1, 2, 3}
    assert found[0][3] == pytest.approx(found[1][3], rel=1e-9)
