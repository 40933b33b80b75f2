"""Fresh seeds are fresh, whatever a module seeds itself; what does not vary is named."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import seed_everything
from torch import Tensor

import dropsearch
from dropsearch.core.global_state import reseeding_follows, seeded
from dropsearch.training.adapters.luck import fixed_luck
from tests.parity.test_rates import Net
from tests.user_modules import data, nets


def weights(seed: int, make: Any) -> Tensor:
    with seeded(seed), reseeding_follows(seed):
        return torch.cat([p.detach().flatten() for p in make().parameters()])


class Reseeding(Net):
    """Seeds everything before it draws its weights, and again before training."""

    def __init__(self) -> None:
        seed_everything(1, verbose=False)
        super().__init__()
        self.drawn: list[float] = []

    def on_fit_start(self) -> None:
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        self.drawn = [float(torch.rand(())), random.random(), float(np.random.rand())]


def test_weights_vary_though_the_constructor_seeds_everything() -> None:
    assert not torch.equal(weights(1, Reseeding), weights(2, Reseeding))
    assert torch.equal(weights(1, Reseeding), weights(1, Reseeding))


def test_random_numbers_vary_though_a_hook_reseeds() -> None:
    drawn = []
    for seed in (1, 2, 1):
        with seeded(seed), reseeding_follows(seed):
            module = Reseeding()
            module.on_fit_start()
        drawn.append(module.drawn)
    assert drawn[0] == drawn[2]
    assert all(a != b for a, b in zip(drawn[0], drawn[1], strict=True))


def test_code_that_reads_data_gets_the_seed_that_it_asks_for() -> None:
    class Data:
        def setup(self) -> Tensor:
            torch.manual_seed(5)
            return torch.rand(3)

    expected = Data().setup()
    with seeded(1), reseeding_follows(1):
        assert torch.equal(Data().setup(), expected)


def test_what_seeds_is_as_before_afterwards() -> None:
    before = torch.manual_seed, random.seed, np.random.seed, dict(os.environ)
    with reseeding_follows(1):
        seed_everything(3, workers=True, verbose=False)
    assert (torch.manual_seed, random.seed, np.random.seed, dict(os.environ)) == before


def test_fixed_parts_are_named() -> None:
    with seeded(1):
        one, other, third = Net(), Net(), Net()
    other.last.load_state_dict(one.last.state_dict())
    batches = [torch.ones(2, 3)] * 2, [torch.zeros(2, 3)] * 2
    start = {module: dict(module.named_parameters()) for module in (one, other, third)}
    assert fixed_luck(start[one], start[third], batches) == ()
    assert fixed_luck(start[one], start[other], batches) == ("initial weights of last",)
    other.load_state_dict(one.state_dict())
    assert fixed_luck(start[one], start[other], (batches[0], batches[0])) == ("initial weights", "batch order")


SEARCH: dict[str, Any] = {
    "n_trials": 2, "max_epochs": 1, "engine": "sequential", "accelerator": "cpu", "arms": ["dropout"],
    "confirm_top_k": 1, "confirm_seeds": 1, "overrides": ["evidence=off"],
}  # fmt: skip


class Seeded(nets.LitNet):
    """Draws its weights from a generator of its own, with a seed that it is given."""

    seen: list[int] = []  # noqa: RUF012

    def __init__(self, seed: int = 3) -> None:
        super().__init__()
        self.seen.append(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed)))


class Fixed(Seeded):
    """Takes no seed."""

    def __init__(self) -> None:
        super().__init__()


@pytest.mark.parametrize(("make", "fixed"), [(Seeded, ()), (Fixed, ("initial weights",))])
def test_a_search_passes_the_seed_on_or_names_what_is_fixed(make: type, fixed: tuple[str, ...], tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float32)
    Seeded.seen.clear()
    found = dropsearch.search(make, data.Digits(), output_dir=tmp_path, **SEARCH)
    assert found.summary.fixed_luck == fixed
    assert (len(set(Seeded.seen)) > 2) is (make is Seeded)
    assert any("initial weights do not vary" in note for note in found.summary.notes) is bool(fixed)


class SeedsInSetup(Net):
    """Builds its last layer in `setup`, as a LightningModule without data of its own does, and seeds before."""

    def setup(self, stage: str) -> None:
        seed_everything(1, verbose=False)
        self.last.reset_parameters()


class OwnData(SeedsInSetup):
    """Has loaders of its own, which `setup` may split."""

    def train_dataloader(self) -> Any:
        return None


@pytest.mark.parametrize(("make", "vary"), [(SeedsInSetup, True), (OwnData, False)])
def test_setup_of_a_module_without_data_is_no_code_that_reads_data(make: Any, vary: bool) -> None:
    drawn = []
    for seed in (1, 2):
        module = make()
        with seeded(seed), reseeding_follows(seed):
            module.setup("fit")
        drawn.append(module.last.weight.detach().clone())
    assert torch.equal(*drawn) is not vary


class StartsFixed(nets.LitNet):
    """Takes its weights from elsewhere when training starts, as from a file."""

    def on_train_start(self) -> None:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.first.weight.copy_(torch.randn(self.first.weight.shape, generator=generator))
            self.first.bias.copy_(torch.randn(self.first.bias.shape, generator=generator))


def test_weights_that_a_hook_sets_are_named(tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float32)
    found = dropsearch.search(StartsFixed, data.Digits(), output_dir=tmp_path, **SEARCH)
    assert found.summary.fixed_luck == ("initial weights of first",)


def test_weights_that_are_fixed_on_purpose_are_no_missing_luck() -> None:
    gates = torch.cat([torch.zeros(4), torch.ones(4), torch.zeros(8)])
    kept = {"eye": torch.eye(5), "gates": gates, "zero": torch.zeros(3), "places": torch.arange(9.0)}
    one, other = {**kept, "drawn": torch.randn(4)}, {**kept, "drawn": torch.randn(4)}
    assert fixed_luck(one, other, ([], [])) == ()
    assert fixed_luck(one, one, ([], [])) == ("initial weights",)
    pair = {"pair": torch.tensor([0.1, 0.2])}
    assert fixed_luck({**one, **pair}, {**other, **pair}, ([], [])) == ("initial weights of pair",)


A, B, C = torch.zeros(2), torch.ones(2), torch.full((2,), 2.0)


@pytest.mark.parametrize(
    ("one", "other", "fixed"),
    [
        ([A, B], [A, B], True),
        ([A, B, C], [A, C, B], False),  # the longest examples first
        ([A], [A], False),  # one batch has no order
        ([A], [B], False),
        ([], [], False),
    ],
)
def test_the_order_of_an_epoch_is_compared(one: Any, other: Any, fixed: bool) -> None:
    assert (fixed_luck({}, {}, (iter(one), iter(other))) == ("batch order",)) is fixed


def test_common_names_of_seeds_are_known() -> None:
    from dropsearch.training.adapters.luck import SEED_ARGUMENTS

    assert {"seed", "random_state", "rng_seed", "torch_seed"} <= {*SEED_ARGUMENTS}
    assert not {"split_seed", "data_seed"} & {*SEED_ARGUMENTS}
