"""Batches of any form, the stage and the data module are what they are under Lightning."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningDataModule
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from dropsearch.core.batches import examples_in, mapped, tensors
from dropsearch.core.records import Monitor
from dropsearch.datasets.user_data import UserData
from dropsearch.dropout.tools.check import check_dropout
from dropsearch.training.logged_steps import on_device_of
from tests.parity.conftest import losses, plain, trial
from tests.parity.test_rates import Net


class Named(NamedTuple):
    x: Tensor
    weight: Tensor | None
    y: Tensor


@dataclasses.dataclass
class Record:
    x: Tensor
    weight: Tensor | None
    y: Tensor


FORMS = {
    "named tuple": Named,
    "dataclass": Record,
    "mapping": lambda x, weight, y: {"x": x, "weight": weight, "y": y},
    "nested tuple": lambda x, weight, y: ((x, weight), {"y": [y]}),
}


def parts(batch: Any) -> tuple[Tensor, Tensor]:
    if isinstance(batch, dict):
        return batch["x"], batch["y"]
    return (batch[0][0], batch[1]["y"][0]) if type(batch) is tuple else (batch.x, batch.y)


class Data(LightningDataModule):
    """Gives batches of one form."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form

    def batches(self, count: int) -> DataLoader:
        x = torch.randn(count, 6, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
        rows = list(zip(x, x.sum(1, keepdim=True), strict=True))
        return DataLoader(rows, batch_size=8, collate_fn=self.collated)

    def collated(self, rows: Any) -> Any:
        return FORMS[self.form](torch.stack([x for x, _ in rows]), None, torch.stack([y for _, y in rows]))

    def train_dataloader(self) -> DataLoader:
        return self.batches(32)

    def val_dataloader(self) -> DataLoader:
        return self.batches(20)


class Formed(Net):
    """Reads batches of any form, asks for its stage and its data module, and has an integer parameter."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.levels = nn.Parameter(torch.arange(3, dtype=torch.uint8), requires_grad=False)
        self._parameters = {"levels": self._parameters.pop("levels"), **self._parameters}

    def loss(self, batch: Any) -> Tensor:
        assert self.trainer.state.stage is not None
        x, y = parts(batch)
        return F.mse_loss(self(x), y)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        assert self.trainer.datamodule.form in FORMS
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        loss = self.loss(batch)
        self.log("val_loss", loss, batch_size=len(parts(batch)[0]))
        self.log("worst", loss, reduce_fx="max", batch_size=1)


class Loaders:
    """What plain Lightning gets: the loaders in the order of the trial."""

    def __init__(self, data: UserData) -> None:
        self.data = data

    def train_loader(self, seed: int) -> Any:
        return self.data.train_loader(seed)

    def val_dataloader(self) -> Any:
        return self.data.val_dataloader()


class Unasked(Formed):
    """Formed for plain Lightning, which has loaders only here."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch)


@pytest.mark.parametrize("form", FORMS)
def test_a_trial_equals_plain_lightning_with_batches_of_any_form(form: str) -> None:
    result, _ = trial(Formed, {"drop": 0.0, "model": 0.0}, data=UserData(Data(form), "Data"))
    assert losses(result) == pytest.approx(
        plain(lambda: Unasked(0.0), Loaders(UserData(Data(form), "Data"))), rel=1e-12
    )
    assert result.curve[-1].train_loss == result.curve[-1].train_loss


@pytest.mark.parametrize("form", FORMS)
def test_the_check_reads_batches_of_any_form(form: str) -> None:
    class Stageless(Formed):
        def loss(self, batch: Any) -> Tensor:
            x, y = parts(batch)
            return F.mse_loss(self(x), y)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.loss(batch)

    module = Stageless()
    batch = on_device_of(module, mapped(next(iter(Data(form).train_dataloader())), Tensor.float))
    assert {each.dtype for each in tensors(batch)} == {torch.float64}
    assert examples_in(batch) == 8
    assert check_dropout(module, batch).alive == ("drop", "model")


def test_means_are_lightnings() -> None:
    monitor = Monitor("worst")
    result, _ = trial(Formed, {"drop": 0.0, "model": 0.0}, data=UserData(Data("mapping"), "Data"), monitor=monitor)
    expected = plain(lambda: Unasked(0.0), Loaders(UserData(Data("mapping"), "Data")), "worst")
    assert [point.objective for point in result.curve] == pytest.approx(expected, rel=1e-12)


def test_a_packed_sequence_stays_one() -> None:
    packed = pack_sequence([torch.ones(3, 2), torch.ones(2, 2)])
    changed = mapped(packed, lambda x: x * 2)
    assert isinstance(changed, PackedSequence)
    assert float(changed.data.sum()) == 20
    assert torch.equal(changed.batch_sizes, packed.batch_sizes)


class TwoLosses(Net):
    """Logs its loss under one name in both steps, and an accuracy in per cent."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss, on_step=False, on_epoch=True)
        self.log("lr", 0.25)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        loss = F.mse_loss(self(batch[0]), batch[1])
        self.log_dict({"loss": loss, "val_acc": 37.5})


def test_every_metric_has_its_own_name_and_the_validations_is_monitored() -> None:
    rates = {"drop": 0.0, "model": 0.0}
    result, _ = trial(TwoLosses, rates, monitor=Monitor("loss"))
    assert [p.objective for p in result.curve] == pytest.approx(plain(lambda: TwoLosses(0.0), name="loss"), rel=1e-12)
    logged = result.curve[-1].logged
    assert set(logged) == {"loss", "training/loss", "lr"}
    assert logged["loss"] != logged["training/loss"] == pytest.approx(result.curve[-1].train_loss_as_trained)
    assert result.curve[-1].val_acc == 37.5


class Averaging(Net):
    """Keeps a mean of its losses, graph and all."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.mean = MeanMetric()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.mean.update(loss)
        self.kept = loss
        return loss


def test_a_metric_that_holds_a_graph_leaves_the_train_curve() -> None:
    rates = {"drop": 0.0, "model": 0.0}
    expected = [point.train_loss for point in trial(Net, rates)[0].curve]
    assert [point.train_loss for point in trial(Averaging, rates)[0].curve] == pytest.approx(expected, rel=1e-12)
