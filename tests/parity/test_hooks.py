"""Modules that build layers in hooks are searched; what cannot be kept or tested is refused before the search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn

import dropsearch
from dropsearch.core.errors import InputError
from tests.parity.test_seeds import SEARCH
from tests.user_modules import data, nets


@pytest.fixture(autouse=True)
def _single() -> None:
    torch.set_default_dtype(torch.float32)


class Late(LightningModule):
    """Builds its layers when the data is there, anew at each stage."""

    def __init__(self) -> None:
        super().__init__()
        self.last: nn.Module | None = None

    def setup(self, stage: str) -> None:
        x, _ = next(iter(self.trainer.datamodule.train_dataloader()))
        self.first, self.drop = nn.Linear(x[0].numel(), 8), nn.Dropout(0.5)

    def configure_model(self) -> None:
        if self.last is None:
            self.last = nn.Linear(8, 10)

    def loss(self, batch: Any) -> Tensor:
        assert self.last is not None
        x, y = batch
        return F.cross_entropy(self.last(self.drop(torch.relu(self.first(x.flatten(1))))), y)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Failing(Late):
    """Cannot be tested."""

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_loss", {}["loss"])


class OnlyInTheEnd(Late):
    """Fails on the test set, and nowhere before."""

    def test_step(self, batch: Any, batch_idx: int) -> None:
        if batch_idx:
            raise RuntimeError("no such file: labels")
        self.log("test_loss", self.loss(batch))


def test_layers_of_hooks_are_searched_kept_and_tested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = dropsearch.search(Late, data.WithTest(), output_dir=tmp_path, **SEARCH)
    assert [site.name for site in found.summary.sites] == ["drop"]
    outcome = found.summary.arms["dropout"]
    assert outcome.test is not None
    # Weights that `setup` draws anew would score as an untrained network does.
    assert outcome.test.loss[0] == pytest.approx(outcome.winner.val_loss[0], rel=0.3)  # type: ignore[union-attr]
    assert not any("when loaded and validated" in note for note in found.summary.notes)


def test_a_test_step_that_fails_is_refused_before_the_search(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"first batch \(KeyError: there is no key 'loss' \(test_hooks.py:\d+ in"):
        dropsearch.search(Failing, data.WithTest(), output_dir=tmp_path, **SEARCH)
    assert not list(tmp_path.iterdir())


def test_a_failure_on_the_test_set_leaves_what_was_found(tmp_path: Path) -> None:
    found = dropsearch.search(OnlyInTheEnd, data.WithTest(), output_dir=tmp_path, **SEARCH)
    assert any("RuntimeError: no such file: labels" in note for note in found.summary.notes)
    assert found.summary.arms["dropout"].winner is not None
    assert {"results.json", "report.md", "best"} <= {path.name for path in tmp_path.iterdir()}


class Annealed(Late):
    """Validates with a number that is no weight."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen += 1
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch) + self.seen)


def test_a_checkpoint_that_does_not_give_what_is_reported_is_named(tmp_path: Path) -> None:
    found = dropsearch.search(Annealed, data.Digits(), output_dir=tmp_path, **SEARCH)
    assert any("when loaded and validated" in note for note in found.summary.notes)


class Holding(nets.LitNet):
    """Holds its loaders itself."""

    def prepare_data(self) -> None:
        self.data = data.WithTest()
        self.data.setup()

    def train_dataloader(self) -> Any:
        return self.data.train_dataloader()

    def val_dataloader(self) -> Any:
        return self.data.val_dataloader()


def test_a_module_that_holds_its_loaders_is_searched(tmp_path: Path) -> None:
    found = dropsearch.search(Holding, output_dir=tmp_path, **SEARCH)
    assert found.summary.arms["dropout"].winner is not None
    assert found.summary.data == "loaders"


class Numbered(nets.LitNet):
    """Takes batches of several loaders."""

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        super().validation_step(batch, batch_idx)


def test_loaders_may_be_given_without_a_data_module(tmp_path: Path) -> None:
    held = data.WithTest()
    held.setup()
    loaders: dict[str, Any] = {
        "train_dataloaders": held.train_dataloader(), "val_dataloaders": held.val_dataloader(),
        "test_dataloaders": [held.test_dataloader(), held.val_dataloader()],
    }  # fmt: skip
    with pytest.raises(InputError, match="no `dataloader_idx` argument"):
        dropsearch.search(nets.LitNet, output_dir=tmp_path, **loaders, **SEARCH)
    found = dropsearch.search(Numbered, output_dir=tmp_path, **loaders, **SEARCH)
    logged = found.summary.arms["dropout"].test.logged  # type: ignore[union-attr]
    assert {"val_loss/dataloader_idx_0", "val_loss/dataloader_idx_1"} <= {*logged}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"train_dataloaders": [1]}, "val_dataloaders must be given"),
        ({"datamodule": data.Digits(), "test_dataloaders": [1]}, "test_dataloaders must be left out"),
    ],
)
def test_half_of_the_loaders_is_refused(given: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        dropsearch.search(nets.LitNet, output_dir=tmp_path, **given)
