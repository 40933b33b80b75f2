"""A data module of the user's own: in which order it gives its batches, and when its examples are held in memory."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dropsearch.core.errors import InputError
from dropsearch.core.global_state import seeded
from dropsearch.datasets.keyed_loader import is_repeatable
from dropsearch.datasets.user_data import UserData
from tests.user_modules import data


def own(module: object) -> UserData:
    return UserData(module, type(module).__name__)


@pytest.mark.parametrize("batch_size", [32, 1000])
def test_the_user_s_loader_and_the_rows_give_the_same_batches_in_every_epoch(batch_size: int):
    source = own(data.Digits(batch_size=batch_size))
    loader, rows = source.train_loader(7), in_rows(source).train_loader(7)
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        theirs, ours = list(loader), [tuple(t[piece] for t in rows.tensors) for piece in _pieces(rows, epoch)]
        assert len(theirs) == len(ours) == max(105 // batch_size, 1)
        for one, other in zip(theirs, ours, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def _pieces(rows: object, epoch: int) -> list[torch.Tensor]:
    return list(rows.order(epoch).split(rows.batch_size))  # type: ignore[attr-defined]


def test_the_order_is_a_function_of_the_seed():
    source = own(data.Digits())
    first, again, other = (next(iter(source.train_loader(seed)))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_set_that_is_not_shuffled_stays_in_order():
    source = own(data.Ordered())
    assert torch.equal(next(iter(source.train_loader(1)))[0], next(iter(in_rows(source).train_loader(2)))[0])


def test_what_setup_draws_follows_from_the_seed():
    torch.manual_seed(1)
    first = own(data.Digits())
    torch.manual_seed(2)
    assert own(data.Digits()).digest == first.digest
    assert UserData(data.Digits(), "Digits", seed=5).digest != first.digest


def test_a_setup_that_splits_for_each_stage_keeps_the_test_set_out_of_training():
    source = own(data.ThreeWays())
    train, val, test = map(examples, (in_rows(source).train_loader(0).tensors[0], *held_out(source)))
    assert (len(train), len(val), len(test)) == (90, 30, 30)
    assert train.isdisjoint(test)
    assert train.isdisjoint(val)
    assert not [note for note in source.notes if "are training examples too" in note]


def in_rows(source: UserData) -> Any:
    """The data in rows, which there are."""
    return source.in_rows()


def held_out(source: UserData) -> list[torch.Tensor]:
    return [torch.cat([x for x, _ in loader]) for loader in (source.val_dataloader(), source.test_dataloader())]


def examples(rows: torch.Tensor) -> set[tuple[float, ...]]:
    return {tuple(row) for row in rows.tolist()}


def test_test_examples_that_are_training_examples_are_counted_and_said():
    source = own(data.Leaking())
    shared = len(examples(in_rows(source).train_loader(0).tensors[0]) & examples(held_out(source)[1]))
    assert shared > 0
    assert (
        f"{shared} of 30 test examples of data=Leaking are also training examples, "
        "so test results are too optimistic: split with a generator of a fixed seed"
    ) in source.overlaps


def test_asking_leaves_the_global_generators_unchanged():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    own(data.Digits())
    assert torch.equal(torch.rand(1), expected)


def test_sizes_and_what_is_left_out_are_known():
    source = own(data.WithTest())
    assert source.sizes == {"train": 105, "val": 45, "test": 100}
    assert (source.left_out, source.batch_size, source.input_shape) == (9, 32, (64,))
    assert "training examples of an incomplete batch, which are dropped in each epoch: 9" in source.notes
    assert own(data.Digits()).test_dataloader() is None


def test_the_part_is_an_eighth_in_whole_batches_and_the_same_each_time():
    part = own(data.Digits()).train_part_loader()
    first, again = ([batch[0] for batch in part] for _ in range(2))
    assert sum(map(len, first)) == 32, "a whole batch of 32 that holds 13"
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (data.Augmented(), "the training examples are random"),
        (data.SeldomAugmented(random.random), "the training examples are random"),
        (data.SeldomAugmented(np.random.random), "the training examples are random"),
        (data.SeldomAugmented(lambda: float(torch.rand(()))), "the training examples are random"),
        (data.SeldomAugmented(random.random, last=True), "the training examples are random"),
        (data.Weighted(), "a custom sampler (WeightedRandomSampler)"),
        (data.Sampled(), "covers only a part of the training set"),
        (data.Shortened(), "covers only a part of the training set"),
        (data.Shortening(), "come from a tests.user_modules.data.Brief, which is a subclass of torch's DataLoader"),
        (data.Redrawn(), "sampled with replacement"),
        (data.Streamed(), "IterableDataset"),
        (data.Padded(), "differs from its stacked examples"),
        (data.Moving(), "overrides on_after_batch_transfer"),
        (data.Streaming(), "a GoingOn, which does not give the same batches again"),
        (data.StreamingSet(), "a Sourced, which does not give the same batches again"),
        (data.SelfSeeded(), "a SelfSeeding, which does not give the same batches again"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_what_is_not_held_in_memory_says_why_and_still_gives_batches(module: data.Digits, why: str):
    source = own(module)
    assert source.rows is None
    assert why in (source.incompatibility or source.why_lockstep)
    assert next(iter(source.train_loader(0))) is not None


@pytest.mark.parametrize("make", [data.Streaming, data.StreamingSet, data.SelfSeeded])
def test_training_batches_that_do_not_follow_from_the_seed_are_noted(make: type):
    assert any("do not follow from its seed" in note for note in own(make()).notes)


@pytest.mark.parametrize("make", [data.Streamed, lambda: data.SelfSeeded(seed=3)])
def test_training_batches_that_follow_from_the_seed_are_not_noted(make: Callable[[], data.Digits]):
    source = own(make())
    assert not source.notes
    assert not source.incompatibility


@pytest.mark.parametrize("seed", [None, 3])
def test_iterators_of_the_check_are_closed(seed: int | None):
    open_ones: list[Any] = []
    assert is_repeatable(data.SelfSeeding(torch.arange(90), open_ones, seed)) is (seed is not None)
    assert not open_ones


def test_a_stream_that_goes_on_stays_open():
    class Held(data.GoingOn):
        def __iter__(self) -> Any:
            return self.stream

    held = Held([0])
    held.stream = (torch.tensor(each) for each in itertools.count())  # type: ignore[assignment]
    assert not is_repeatable(held)
    assert next(held.stream) == 4


@pytest.mark.parametrize(("make", "in_an_epoch"), [(data.Sampled, 64), (data.Redrawn, 105), (data.Shortened, 64)])
def test_a_sampler_that_is_no_plain_shuffle_keeps_its_own_epochs(make: type, in_an_epoch: int):
    loader = own(make()).train_loader(0)
    epochs = [torch.cat([x for x, _ in loader]) for _ in range(3)]
    assert [len(epoch) for epoch in epochs] == [in_an_epoch] * 3
    seen = len(examples(torch.cat(epochs)))
    assert seen == 64 if make is data.Shortened else 64 < seen <= 105
    assert len(examples(epochs[0])) < 105


def test_a_kind_of_dataloader_of_the_user_s_own_gives_its_own_batches_whose_order_depends_on_the_seed():
    source = own(data.Shortening())
    first, again, other = (_drawn(source, seed) for seed in (1, 1, 2))
    assert len(first) == 2
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    assert not source.notes


def _drawn(source: UserData, seed: int) -> list[torch.Tensor]:
    with seeded(seed):
        return [x for x, _ in source.train_loader(seed)]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (data.WithoutTraining(), "must return batches from train_dataloader, got none"),
        (data.Failing(), "failed in setup: FileNotFoundError: no file digits.bin"),
        (data.Testless(), "; without a test set, give its training and validation loaders alone"),
    ],
)
def test_what_gives_no_batches_is_refused(module: object, message: str):
    with pytest.raises(InputError) as caught:
        own(module)
    assert message in str(caught.value)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_validation_examples_that_are_training_examples_are_found_in_another_set(share: float) -> None:
    assert UserData(data.Seen(share), "Seen").share_in_training == pytest.approx(share, abs=0.03)
    assert UserData(data.Digits(), "Digits").share_in_training < 0.05
