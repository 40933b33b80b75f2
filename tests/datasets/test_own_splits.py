"""The training and validation set of a retraining: drawn by its seed, from all examples outside the test set."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dropsearch.core.records import TrialSpec
from dropsearch.datasets.data_module import TensorDataModule
from dropsearch.datasets.splits import TensorSplit

SEARCH = TrialSpec("dropout", 0, 7, {}, lr=1e-3, weight_decay=0.0)
CONFIRM = replace(SEARCH, phase="confirm")


@pytest.fixture(scope="module", params=[{}, {"train_size": 200, "val_fraction": 0.25}])
def source(request: pytest.FixtureRequest) -> TensorDataModule:
    module = TensorDataModule("digits", seed=3, **request.param)
    module.setup()
    return module


def whole(loader: object) -> Tensor:
    return torch.cat([x for x, _ in loader])  # type: ignore[attr-defined]


def of(split: TensorSplit) -> list[set[int]]:
    return [set(indices.tolist()) for indices in (split.train, split.val, split.train_part)]


def test_trials_of_a_search_share_the_split_of_the_study(source: TensorDataModule):
    one, other = source.for_trial(SEARCH), source.for_trial(replace(SEARCH, seed=8, number=1, arm="both"))
    assert one is other
    assert torch.equal(whole(one.val_dataloader()), whole(source.val_dataloader()))
    assert torch.equal(one.train_loader(7).order(1), source.train_loader(7).order(1))


def test_a_seed_draws_the_same_split_in_every_arm_and_phase(source: TensorDataModule):
    first = source.for_trial(CONFIRM)
    for spec in (replace(CONFIRM, arm="both", number=5), replace(CONFIRM, phase="sites")):
        assert source.for_trial(spec) is first
    assert of(source.for_trial(replace(CONFIRM, seed=8))) != of(first)


@pytest.mark.parametrize("seed", range(5))
def test_sets_are_disjoint_and_have_the_sizes_of_the_search(source: TensorDataModule, seed: int):
    train, val, part = of(source.for_trial(replace(CONFIRM, seed=seed)))
    assert not train & val
    assert part <= train
    assert {"train": len(train), "val": len(val)} == {name: source.sizes[name] for name in ("train", "val")}
    assert len(part) == min(len(val), len(train))


def test_the_split_is_that_of_the_same_seed_in_a_search(source: TensorDataModule):
    options = {"train_size": source.train_size, "val_fraction": source.val_fraction}
    own, of_search = source.for_trial(CONFIRM), TensorDataModule("digits", seed=CONFIRM.seed, **options)
    for one, other in (
        (own.val_dataloader(), of_search.val_dataloader()),
        (own.train_part_loader(), of_search.train_part_loader()),
    ):
        ours, theirs = whole(one), whole(other)
        # Each data module standardizes by its own training set; pixels are the same up to that.
        assert torch.allclose((ours - ours.mean()) / ours.std(), (theirs - theirs.mean()) / theirs.std(), atol=1e-5)


def test_no_split_takes_a_test_example(source: TensorDataModule):
    test = {tuple(row) for row in whole(source.test_dataloader()).flatten(1).tolist()}
    for seed in range(3):
        own = source.for_trial(replace(CONFIRM, seed=seed))
        seen = torch.cat([whole(own.val_dataloader()), own.examples[0][own.train]])
        assert not test & {tuple(row) for row in seen.flatten(1).tolist()}


def test_every_example_outside_the_test_set_is_drawn_at_some_seed():
    source = TensorDataModule("digits", train_size=500, val_fraction=0.25)
    own = [source.for_trial(replace(CONFIRM, seed=seed)) for seed in range(40)]
    assert set.union(*(of(split)[0] for split in own)) == set(range(1797 - 359))


def test_a_split_holds_indices_and_no_copy_of_the_data(source: TensorDataModule):
    own = [source.for_trial(replace(CONFIRM, seed=seed)) for seed in range(4)]
    loaders = [load() for each in own for load in (each.val_dataloader, each.train_part_loader)]
    tensors = source.train_loader(0).tensors
    for loader in (*loaders, *(each.train_loader(0) for each in own)):
        assert all(one is other for one, other in zip(loader.tensors, tensors, strict=True))


def test_other_processes_draw_the_same_splits(source: TensorDataModule):
    again = pickle.loads(pickle.dumps(source))
    assert of(again.for_trial(CONFIRM)) == of(source.for_trial(CONFIRM))
    assert torch.equal(
        whole(again.for_trial(CONFIRM).val_dataloader()), whole(source.for_trial(CONFIRM).val_dataloader())
    )


def test_an_order_covers_the_training_set_of_the_split(source: TensorDataModule):
    loader = source.for_trial(CONFIRM).train_loader(CONFIRM.seed)
    order = loader.order(0)
    assert len(order) == len(loader) * source.batch_size
    assert set(order.tolist()) <= of(source.for_trial(CONFIRM))[0]
    assert len(set(order.tolist())) == len(order)
