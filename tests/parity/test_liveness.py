"""A site is called dead only where it stays so after some training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dropsearch
from dropsearch import check_dropout
from dropsearch.datasets.user_data import UserData
from dropsearch.experiment.dropout_check import STEPS, check_rates
from dropsearch.training.adapters.probe import probe, trained_for
from dropsearch.training.protocols import TrainerSettings
from tests.parity.test_seeds import SEARCH
from tests.user_modules import data, nets


class LowRank(nn.Module):
    """A frozen layer with an update of low rank, whose second factor starts at zero."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.base = nn.Linear(width, out).requires_grad_(False)
        self.a, self.drop, self.b = nn.Linear(width, 4, bias=False), nn.Dropout(0.1), nn.Linear(4, out, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.b(self.a(self.drop(x)))


class Adapted(nets.LitNet):
    """Has dropout in its low-rank updates only."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.drop = LowRank(64, 16), LowRank(16, 10), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))


def test_a_module_whose_sites_come_alive_in_training_is_searched(tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float32)
    more: dict[str, Any] = {**SEARCH, "output_dir": tmp_path}
    found = dropsearch.search(Adapted, data.Digits(), **more)
    assert [site.name for site in found.summary.sites] == ["first.drop", "last.drop"]
    assert not any("rates 0 and 0.9" in note or "frozen" in note for note in found.summary.notes)


class Sited(nets.LitNet):
    """Has one site, `drop`, and an auxiliary head; subclasses say where and when it drops."""

    def __init__(self) -> None:
        super().__init__()
        self.between = nn.Linear(12, 12)
        self.register_buffer("gate", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.mixed(torch.relu(self.first(x.flatten(1)))))

    def mixed(self, x: Tensor) -> Tensor:
        return x


class Zeroed(Sited):
    """Multiplies the branch with a weight that starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(()))

    def mixed(self, x: Tensor) -> Tensor:
        return x + self.scale * self.between(self.drop(x))


class Opening(Sited):
    """Opens a gate at the start of the second epoch."""

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 1:
            self.gate.fill_(1.0)

    def mixed(self, x: Tensor) -> Tensor:
        return x + self.gate * self.between(self.drop(x))


class Weighted(Sited):
    """Gives an auxiliary loss no weight before the last epoch."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        weight = float(self.current_epoch >= 2)
        auxiliary = self.between(self.drop(torch.relu(self.first(batch[0].flatten(1)))))
        return super().training_step(batch, batch_idx) + weight * auxiliary.square().mean()


class Late(Sited):
    """Drops from the second epoch on."""

    def mixed(self, x: Tensor) -> Tensor:
        return self.drop(x) if self.training and self.current_epoch >= 1 else x


class LateCall(Sited):
    """Calls a function from the second epoch on."""

    def mixed(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, 0.3, self.training) if self.current_epoch >= 1 else x


class Third(Sited):
    """Drops in every third step."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        hidden = torch.relu(self.first(batch[0].flatten(1)))
        return nn.functional.cross_entropy(self.last(self.drop(hidden) if batch_idx % 3 == 2 else hidden), batch[1])


class Logged(Sited):
    """Makes nothing of what it drops but a number that it logs."""

    def mixed(self, x: Tensor) -> Tensor:
        self.seen = self.drop(x).detach().mean()
        return x


class Never(Sited):
    """Has a dropout that nothing calls."""


SETTINGS = TrainerSettings(3, "cpu")


def looked_at(make: type) -> tuple[list[str], tuple[str, ...]]:
    """Return the sites of a module that can be searched, and those of them that a check finds dead."""
    torch.set_default_dtype(torch.float32)
    batches = UserData(data.Digits(), "Digits").for_trainer(0)
    found = probe(make(), batches, SETTINGS)
    checked = check_rates(make, found.batch, lambda module: trained_for(module, batches, SETTINGS, STEPS, 3), 3).found
    return [site.name for site in found.sites if site.controllable], checked.dead if checked else ()


@pytest.mark.parametrize("make", [Zeroed, Opening, Weighted, Late, LateCall, Third])
def test_a_site_that_acts_later_is_searched_and_not_dead(make: type) -> None:
    assert looked_at(make) == (["model" if make is LateCall else "drop"], ())


@pytest.mark.parametrize(("make", "searched"), [(Logged, ["drop"]), (Never, [])])
def test_a_site_without_any_effect_is_still_found(make: type, searched: list[str]) -> None:
    assert looked_at(make) == (searched, tuple(searched))


def test_a_branch_that_starts_at_zero_is_alive_by_its_gradient() -> None:
    torch.set_default_dtype(torch.float32)
    assert check_dropout(Zeroed(), next(iter(UserData(data.Digits(), "Digits").train_loader(0)))).alive == ("drop",)


class OfBatches(nets.LitNet):
    """Weighs its loss by the share of the epoch that is over."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * (batch_idx + 1) / self.trainer.num_training_batches


class OfSteps(nets.LitNet):
    """Weighs its loss by the share of the fit that is over."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        share = (self.trainer.global_step + 1) / self.trainer.estimated_stepping_batches
        return super().training_step(batch, batch_idx) * share


class Scheduled(nets.LitNet):
    """Reads its learning rate, which warms up over all steps of the fit."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step(batch, batch_idx) * (1 + self.lr_schedulers().get_last_lr()[0])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.1)
        steps = int(self.trainer.estimated_stepping_batches)
        return [optimizer], [torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)]


class OfEpochs(nets.LitNet):
    """Expects an epoch of the fit, and the loader."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        assert self.current_epoch < self.trainer.max_epochs
        assert self.trainer.train_dataloader is not None
        return super().training_step(batch, batch_idx)


class OfData(OfEpochs):
    """Expects its data module, and as many batches as an epoch of it has."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        assert self.trainer.datamodule.examples == 150
        assert self.trainer.num_training_batches == 3
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("make", [OfBatches, OfSteps, Scheduled, OfEpochs, OfData])
def test_a_step_that_reads_its_fit_is_checked(make: type) -> None:
    torch.set_default_dtype(torch.float32)
    batches = UserData(data.Digits(), "Digits").for_trainer(0)
    batch = next(iter(UserData(data.Digits(), "Digits").train_loader(0)))
    found = check_rates(make, batch, lambda module: trained_for(module, batches, SETTINGS, STEPS, 3), 3, batches)
    assert found.notes("Net") == ()
    if make is not OfData:
        assert check_dropout(make(), batch).alive == ("model", "drop")
