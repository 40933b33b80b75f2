"""Rows that read their own loaders in lockstep: the same batches and numbers as alone, for each kind of loader."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from dropsearch.core.errors import InputError
from dropsearch.core.records import EpochMetrics, TrialSpec
from dropsearch.datasets.user_data import UserData
from dropsearch.training.planning.plan import make_plan
from dropsearch.training.vectorized.engine import VectorizedEngine
from tests.training.conftest import Queue
from tests.training.vectorized.laws import Case, assert_alike, assert_law_2, trials
from tests.user_modules import metrics
from tests.user_modules.data import Digits, Scaling
from tests.user_modules.loaders import (
    KINDS,
    Broken,
    Custom,
    Flowing,
    Given,
    Lying,
    Noisy,
    loader,
    tensors,
    torch_noise,
)
from tests.user_modules.nets import LitNet

Make = Callable[[], Any]


def case(make: Make, module: Any = LitNet, **more: Any) -> Case:
    return Case(module, Given(make, **more))


@pytest.mark.parametrize("kind", KINDS)
def test_law_2_holds(kind: str, tmp_path: Path) -> None:
    assert_law_2(case(KINDS[kind]), tmp_path)


class Mapped(LitNet):
    """Trains on mappings, which a hook of the data module makes."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step((batch["x"], batch["y"]), batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step((batch["x"], batch["y"]), batch_idx)


def test_law_2_holds_for_hooks_on_batches(tmp_path: Path) -> None:
    assert_law_2(Case(Mapped, Scaling()), tmp_path)


class Flipping(Digits):
    """Flips the training images alone, which it tells by the mode of gradients."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return (batch[0].flip(-1) if torch.is_grad_enabled() else batch[0]), batch[1]


def test_the_proof_trains_sequentially_as_lightning_calls_the_hooks() -> None:
    one = Case(LitNet, Flipping())
    assert "of LitNet differs between vectorized and sequential training" in one.reason()


class Aside(LitNet):
    """Declares, as the built-in models do, that its steps may run outside of a Trainer."""

    steps_keep_no_state = True


def test_the_train_loss_is_that_of_the_batches_after_the_hooks(tmp_path: Path) -> None:
    specs = trials(1)
    aside, plain = (
        Case(module, InPlace(), epochs=1).sequential(specs, tmp_path)[0].curve[0] for module in (Aside, LitNet)
    )
    assert aside.train_loss == pytest.approx(plain.train_loss, abs=1e-12)
    assert Case(Aside, InPlace(), epochs=1).reason() == ""


class InPlace(Digits):
    """Scales its batches in place."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0].div_(3), batch[1]


def test_hooks_that_change_their_batch_in_place_train_vectorized() -> None:
    assert Case(LitNet, InPlace()).reason() == ""


class Held:
    """A batch that Lightning moves to a device, and leaves in float32 in double precision."""

    def __init__(self, examples: list[Any]) -> None:
        self.x = torch.stack([x for x, _ in examples])
        self.y = torch.stack([y for _, y in examples])

    def to(self, device: Any, **_: Any) -> Held:
        self.x, self.y = self.x.to(device), self.y.to(device)
        return self


class OwnLoader(DataLoader):
    """A class of its own, whose examples are not taken into memory."""


class OfHeld(LitNet):
    """Trains on such batches, of which Lightning does not find the size."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch.x), batch.y)
        self.log("train_loss" if self.training else "val_loss", loss, batch_size=len(batch.y))
        return loss

    validation_step = training_step  # type: ignore[assignment]


def test_batches_that_lightning_leaves_in_float32() -> None:
    x, y = tensors()
    held = lambda: OwnLoader(TensorDataset(x.float(), y), 16, collate_fn=Held)  # noqa: E731
    assert Case(OfHeld, Given(held, held)).reason() == ""


class SingleStream(IterableDataset):
    """Has examples in float32, as most data sets have."""

    def __init__(self) -> None:
        self.single = Noisy(torch_noise)
        self.single.x = self.single.x.float()

    def __iter__(self) -> Any:
        return (self.single[index] for index in range(len(self.single)))


@pytest.mark.parametrize("kind", [SingleStream, lambda: SingleStream().single], ids=["stream", "indexed"])
def test_batches_of_worker_processes_keep_their_type(kind: Any) -> None:
    """The proof computes in float64, and reads tensors of processes, which have their type already."""
    assert case(lambda: loader(kind(), num_workers=1)).reason() == ""


@pytest.mark.parametrize("module", [metrics.Outputs, metrics.Warming, metrics.Numbers])
def test_law_2_holds_with_hooks_clocks_and_kept_outputs(module: Any, tmp_path: Path) -> None:
    assert_law_2(case(KINDS["torch"], module), tmp_path)


@pytest.mark.parametrize("kind", ["torch", "lengthening"])
def test_law_2_holds_where_a_row_is_refilled(kind: str, tmp_path: Path) -> None:
    def prune(spec: TrialSpec, metrics: EpochMetrics) -> bool:
        return spec.number == 1 and metrics.epoch == 0

    one, specs = case(KINDS[kind]), trials(4)
    alone = one.sequential(specs, tmp_path, prune=prune)
    assert alone[1].state == "PRUNED"
    assert_alike(one.vectorized(specs, tmp_path, width=2, prune=prune), alone)


def random_validation() -> DataLoader:
    return loader(Noisy(torch_noise, 10), batch_size=4)


@pytest.mark.parametrize("module", [LitNet, metrics.Outputs])
@pytest.mark.parametrize("train", ["torch", "in memory"])
def test_law_2_holds_where_the_validation_set_is_random(train: str, module: Any, tmp_path: Path) -> None:
    make = KINDS.get(train, lambda: loader(TensorDataset(*tensors()), shuffle=True))
    one = case(make, module, val=random_validation)
    assert one.source.validates_by_row
    assert_law_2(one, tmp_path)


def test_a_fixed_validation_set_is_read_once_for_all_rows() -> None:
    assert not UserData(Given(KINDS["torch"]), "data").validates_by_row
    assert UserData(Given(KINDS["torch"], val=Custom), "data").validates_by_row


class Pair(LitNet):
    """Trains on two loaders at once."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return sum(super(Pair, self).training_step(part, batch_idx) for part in batch.values())  # type: ignore[return-value]


@pytest.mark.parametrize("combine", [dict, lambda given: CombinedLoader(given, "min_size")])
def test_law_2_holds_with_two_training_loaders(combine: Any, tmp_path: Path) -> None:
    short = lambda: loader(Noisy(torch_noise, 9))  # noqa: E731
    assert_law_2(case(lambda: combine({"a": KINDS["torch"](), "b": short()}), Pair), tmp_path)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_that_raises_fails_its_trial_alone(workers: int, tmp_path: Path) -> None:
    one, specs = case(lambda: loader(Broken(), shuffle=True, num_workers=workers)), trials(3)
    alone = one.sequential(specs, tmp_path)
    assert [alone[n].state for n in range(3)] == ["COMPLETE", "COMPLETE", "FAIL"]
    beside = one.vectorized(specs, tmp_path)
    assert "a broken example" in beside[2].reason
    assert "a broken example" in alone[2].reason
    assert_alike(beside, alone)


def test_trials_that_were_interrupted_give_the_same_when_they_start_anew(tmp_path: Path) -> None:
    one, specs = case(KINDS["own generator"]), trials(3)

    def prune(spec: TrialSpec, metrics: EpochMetrics) -> bool:
        return spec.number == 0 and metrics.epoch == 0

    stopped = one.vectorized(specs, tmp_path, prune=prune, stop_after=1)
    assert sorted(result.state for result in stopped.values()) == ["FAIL", "FAIL", "PRUNED"]
    assert_alike(one.vectorized(specs[1:], tmp_path), one.sequential(specs[1:], tmp_path))


def test_shared_batches_are_read_once_and_are_those_of_a_trial_alone(tmp_path: Path) -> None:
    reads: list[int] = []

    class Counted(Noisy):
        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            reads.append(index)
            return super().__getitem__(index)

    one, specs = case(lambda: loader(Counted(torch_noise), shuffle=True)), trials(3)
    one.settings = dataclasses.replace(one.settings, shared_batches=True)
    alone = one.sequential(specs, tmp_path)
    one.source.train_part_loader = lambda: [next(iter(random_validation()))]  # type: ignore[method-assign]
    reads.clear()
    together = one.vectorized(specs, tmp_path)
    assert len(reads) == 2 * 8 + 2 * 22, "a first batch to look at the steps and one for their masks, and two epochs"
    for number, result in alone.items():
        for found, expected in zip(together[number].curve, result.curve, strict=True):
            assert found.val_loss == pytest.approx(expected.val_loss, abs=1e-9)


def test_confirmation_never_shares_batches() -> None:
    settings = dataclasses.replace(case(KINDS["torch"]).settings, shared_batches=True)
    spec = trials(2)[1]
    assert settings.batch_seed(spec) == 0
    assert settings.batch_seed(dataclasses.replace(spec, phase="confirm")) == spec.seed


@pytest.mark.falls_back
def test_a_loader_with_fewer_batches_than_its_length_says_trains_as_lightning_does(tmp_path: Path) -> None:
    one, queue = case(Lying), Queue(trials(2))
    rows = one.source.in_rows()
    assert rows is not None
    engine = VectorizedEngine(one.make_module, rows, one.settings, 2)
    with pytest.raises(InputError, match="the trainer must validate at least once"):
        engine.run(queue)
    said = "a training loader yields 2 batches, but its length is 3, so its epoch is not validated (loaders.py:"
    assert engine.failure.startswith(said)


def test_a_generator_is_no_loader_for_several_trials() -> None:
    source = UserData(Given(lambda: (batch for batch in loader(TensorDataset(*tensors())))), "data")
    assert source.in_rows() is None
    said = "the training batches come from a generator, which cannot be copied for each trial (loaders.py:"
    assert source.incompatibility.startswith(said)


@pytest.mark.parametrize(
    ("make", "most", "words"),
    [
        (KINDS["workers"], None, "with 2 worker processes for all"),
        (lambda: loader(Flowing(), num_workers=2), 8, "with 2 worker processes for each"),
        (KINDS["torch"], None, "read in lockstep, because the training examples are random"),
    ],
)
def test_worker_processes_are_bounded(make: Make, most: int | None, words: str) -> None:
    source = UserData(Given(make), "data")
    assert source.most_rows == most
    assert words in source.reading


def test_the_plan_measures_reading(tmp_path: Path) -> None:
    one = case(KINDS["torch"])
    rows = one.source.in_rows()
    assert rows is not None
    first, second = trials(2)
    plan = make_plan(
        one.make_module, rows, one.settings, [(first, second)], engine="vectorized", width=None, max_open=2
    )
    assert (plan.engine, plan.reason) == ("vectorized", "measured")
    assert plan.speed > 0


def test_reading_leaves_the_global_generators_unchanged() -> None:
    source = UserData(Given(KINDS["python"]), "data")
    before = torch.random.get_rng_state()
    first = [x for x, _ in source.train_loader(1)]
    torch.rand(3)
    assert not torch.equal(before, torch.random.get_rng_state())
    again = [x for x, _ in source.train_loader(1)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], next(iter(source.train_loader(2)))[0])


@pytest.mark.parametrize("kind", ["torch", "own generator", "collate"])
def test_worker_processes_change_no_batch(kind: str) -> None:
    made = [KINDS[kind]() for _ in range(2)]
    vars(made[1])["num_workers"] = 2
    vars(made[1])["prefetch_factor"] = 2
    one, other = (UserData(Given(lambda each=each: each), "data").train_loader(5) for each in made)
    for _ in range(2):
        for (x, _), (again, _) in zip(one, other, strict=True):
            assert torch.equal(x, again)
