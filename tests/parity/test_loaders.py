"""Loaders in every form in which Lightning takes them: several, reloaded, combined, given without a data module."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningDataModule
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from dropsearch.core.errors import InputError
from dropsearch.core.records import Monitor
from dropsearch.datasets.given_loaders import GivenLoaders
from dropsearch.datasets.user_data import UserData
from dropsearch.datasets.user_loaders import each_loader
from dropsearch.experiment.scoring import monitored_scores
from dropsearch.training.protocols import TrainerSettings
from tests.parity.conftest import losses, plain, trial
from tests.parity.test_batches import Loaders
from tests.parity.test_rates import Net

RATES = {"drop": 0.0, "model": 0.0}


def batches(count: int, seed: int = 0, **more: Any) -> DataLoader:
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8, **more)


class Several(LightningDataModule):
    """Validates and tests on several sets."""

    def __init__(self, form: Any = list) -> None:
        super().__init__()
        self.form = form

    def train_dataloader(self) -> Any:
        assert self.trainer is not None
        return batches(32, 1, shuffle=True)

    def val_dataloader(self) -> Any:
        return self.form([batches(20, 2), batches(12, 3)])

    def test_dataloader(self) -> Any:
        return [batches(10, 4), batches(9, 5), batches(8, 6)]


FORMS = {
    "list": list,
    "tuple": tuple,
    "mapping": lambda loaders: dict(zip("ab", loaders, strict=True)),
    "combined": lambda loaders: CombinedLoader(loaders, "sequential"),
}


class PerLoader(Net):
    """Its steps need the number of the loader, as those of modules with several loaders do."""

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:  # type: ignore[override]
        self.log("val_loss", F.mse_loss(self(batch[0]), batch[1]), batch_size=len(batch[0]))

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        self.log("test_loss", F.mse_loss(self(batch[0]), batch[1]), batch_size=len(batch[0]))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("index", [0, 1])
def test_the_monitored_loader_is_chosen_by_lightnings_name(form: str, index: int) -> None:
    name, data = f"val_loss/dataloader_idx_{index}", lambda: UserData(Several(FORMS[form]), "Several")
    result, _ = trial(PerLoader, RATES, data=data(), monitor=Monitor(name))
    assert [p.objective for p in result.curve] == pytest.approx(
        plain(lambda: PerLoader(0.0), Loaders(data()), name), rel=1e-12
    )
    point = result.curve[-1]
    assert {"val_loss/dataloader_idx_0", "val_loss/dataloader_idx_1"} <= {*point.logged}
    assert point.val_loss == point.objective
    assert 0 < point.train_loss < 100


def test_several_loaders_are_all_counted_and_train_sequentially() -> None:
    data = UserData(Several(), "Several")
    assert data.sizes == {"train": 32, "val": 32, "test": 27}
    assert data.in_rows() is None
    assert data.incompatibility.startswith("there are 2 validation loaders (test_loaders.py:")


@pytest.mark.parametrize(("name", "chosen"), [("val_loss/dataloader_idx_1", 1), ("val_loss", 0)])
def test_every_test_loader_is_measured(name: str, chosen: int) -> None:
    settings = TrainerSettings(1, "cpu", precision="64-true", monitor=Monitor(name))
    module = PerLoader(0.0)
    found = monitored_scores("Net", module, UserData(Several(), "Several"), settings)
    module.eval()
    expected = [
        F.mse_loss(module(loader.dataset.tensors[0]), loader.dataset.tensors[1]).item()  # type: ignore[attr-defined]
        for loader in Several().test_dataloader()
    ]
    assert [found.logged[f"test_loss/dataloader_idx_{i}"] for i in range(3)] == pytest.approx(expected, rel=1e-9)
    assert found.loss == pytest.approx(expected[chosen], rel=1e-9)


class Reloaded(LightningDataModule):
    """Gives other examples each time that it is asked."""

    def train_dataloader(self) -> Any:
        epoch = self.trainer.current_epoch if self.trainer else 0
        return batches(16 + 8 * epoch, 7, shuffle=False)

    def val_dataloader(self) -> Any:
        return batches(16, 8)


class Counting(Net):
    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.batches: list[int] = []

    def on_train_epoch_start(self) -> None:
        self.batches.append(self.trainer.num_training_batches)  # type: ignore[arg-type]


@pytest.mark.parametrize(("every", "expected"), [(1, [2, 3]), (0, [2, 2])])
def test_loaders_are_reloaded_as_the_trainer_says(every: int, expected: list[int]) -> None:
    given = {"reload_dataloaders_every_n_epochs": every}
    result, module = trial(Counting, RATES, data=UserData(Reloaded(), "Reloaded"), trainer=lambda: given)
    assert result.state == "COMPLETE", result.reason
    assert module.batches == expected


class Pair(Net):
    """Trains on two loaders at once."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return sum(super(Pair, self).training_step(part, batch_idx) for part in batch.values())  # type: ignore[return-value]


@pytest.mark.parametrize("combine", [dict, CombinedLoader])
def test_a_module_trains_on_several_loaders(combine: Any) -> None:
    def data() -> UserData:
        given = combine({"a": batches(24, 1), "b": batches(16, 2)})
        return UserData(GivenLoaders(given, batches(16, 3)), "loaders")

    result, _ = trial(Pair, RATES, data=data())
    assert losses(result) == pytest.approx(plain(lambda: Pair(0.0), Loaders(data())), rel=1e-12)


class Listed(Net):
    """Trains on a list of one loader, whose batches are lists of one."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (alone,) = batch
        return super().training_step(alone, batch_idx)


def test_batches_of_a_list_of_one_loader_are_lists_of_one() -> None:
    def data() -> UserData:
        return UserData(GivenLoaders([batches(24, 1)], [batches(16, 3)]), "loaders")

    result, _ = trial(Listed, RATES, data=data())
    assert losses(result) == pytest.approx(plain(lambda: Listed(0.0), Loaders(data())), rel=1e-12)
    assert 0 < result.curve[-1].train_loss < 100
    assert data().sizes["train"] == 24


class Unaware(Net):
    def on_fit_start(self) -> None:
        assert getattr(self.trainer, "datamodule", None) is None


def test_given_loaders_reach_the_trainer_as_they_are() -> None:
    given = UserData(GivenLoaders(batches(16, 1), batches(16, 2)), "loaders")
    assert not given.has_test
    assert losses(trial(Unaware, RATES, data=given)[0])


@pytest.mark.filterwarnings("ignore:.*pin_memory. argument:UserWarning")
def test_a_data_module_made_of_data_sets_is_taken() -> None:
    sets = [batches(16, seed).dataset for seed in (1, 2)]
    data = UserData(LightningDataModule.from_datasets(*sets, batch_size=8, num_workers=0), "Data")
    assert data.sizes == {"train": 16, "val": 16, "test": 0}


def test_loaders_of_all_forms_are_found() -> None:
    one, two = batches(8), batches(8)
    assert each_loader({"a": one, "b": [two]}) == each_loader(CombinedLoader([one, two])) == [one, two]
    assert each_loader(None) == []


@pytest.mark.parametrize("given", [None, [], {}])
def test_no_batches_are_refused(given: Any) -> None:
    with pytest.raises(InputError, match="must return batches from val_dataloader, got none"):
        UserData(GivenLoaders(batches(8), given), "loaders")
