from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning import LightningModule, Trainer
from torch import nn

from dropsearch.datasets.loaders import TensorLoader

SIZES = st.tuples(st.integers(1, 60), st.integers(1, 70))
SEEDS = st.integers(0, 2**50)


def numbered(examples: int, batch_size: int = 4, **options) -> TensorLoader:
    """Return a loader whose inputs and targets are the numbers of the examples."""
    numbers = torch.arange(examples)
    return TensorLoader((numbers.float()[:, None], numbers), batch_size, **options)


def targets(loader: TensorLoader) -> list[int]:
    return [int(target) for batch in loader for target in batch[-1]]


@given(SIZES, st.none() | SEEDS)
def test_each_example_comes_once_an_epoch(sizes, seed):
    assert sorted(targets(numbered(*sizes, seed=seed))) == list(range(sizes[0]))


@given(SIZES, st.none() | SEEDS, st.booleans())
def test_as_many_batches_come_as_the_length_says(sizes, seed, drop_last):
    loader = numbered(*sizes, seed=seed, drop_last=drop_last)
    assert len(list(loader)) == len(loader)


@given(SIZES, SEEDS, st.integers(0, 10**6))
def test_the_order_is_a_function_of_seed_and_epoch(sizes, seed, epoch):
    first, second = numbered(*sizes, seed=seed), numbered(*sizes, seed=seed)
    second.set_epoch(3)
    list(second)
    assert torch.equal(first.order(epoch), second.order(epoch))


@given(SIZES, SEEDS, st.booleans(), st.integers(0, 100))
def test_batches_follow_the_order_of_their_epoch(sizes, seed, drop_last, epoch):
    loader = numbered(*sizes, seed=seed, drop_last=drop_last)
    loader.set_epoch(epoch)
    assert targets(loader) == loader.order(epoch).tolist()


@given(SIZES, SEEDS)
def test_with_drop_last_all_batches_have_one_shape(sizes, seed):
    assert {len(y) for _, y in numbered(*sizes, seed=seed, drop_last=True)} <= {sizes[1]}


def test_an_order_is_the_same_on_every_machine():
    assert numbered(10, seed=3).order(1).tolist() == [6, 0, 7, 1, 8, 9, 3, 5, 4, 2]


def test_orders_of_epochs_and_seeds_differ():
    orders = {tuple(numbered(50, seed=seed).order(epoch).tolist()) for seed in range(6) for epoch in range(6)}
    assert len(orders) == 36


def test_without_a_seed_every_epoch_is_in_order():
    loader = numbered(10)
    assert [targets(loader) for _ in range(2)] == [list(range(10))] * 2


def test_iterating_again_moves_through_the_epochs():
    loader = numbered(20, seed=1)
    assert [targets(loader) for _ in range(3)] == [loader.order(epoch).tolist() for epoch in range(3)]


def test_an_iterator_that_is_never_asked_uses_no_epoch_up():
    loader = numbered(20, seed=1)
    iter(loader)
    assert targets(loader) == loader.order(0).tolist()


def test_inputs_and_target_of_an_example_stay_together():
    for x, y in numbered(30, seed=4):
        assert torch.equal(x[:, 0].long(), y)


@pytest.mark.parametrize("seed", [None, 5])
def test_a_model_that_works_in_place_does_not_alter_the_data(seed):
    loader = numbered(10, seed=seed)
    for x, _ in loader:
        x.zero_()
    assert torch.equal(loader.tensors[0][:, 0], torch.arange(10).float())


@pytest.mark.parametrize(
    ("tensors", "batch_size"),
    [((), 4), ((torch.zeros(3), torch.zeros(4)), 4), ((torch.zeros(3),), 0), ((torch.zeros(3),), -1)],
)
def test_what_cannot_be_batched_is_refused(tensors, batch_size):
    with pytest.raises(ValueError, match="must"):
        TensorLoader(tensors, batch_size)


class Recorder(LightningModule):
    """Notes which examples each training epoch saw."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.seen: dict[int, list[int]] = {}

    def training_step(self, batch, batch_index):
        x, y = batch
        self.seen.setdefault(self.current_epoch, []).extend(y.tolist())
        return self.layer(x).mean()

    def validation_step(self, batch, batch_index):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def trainer(folder, **options) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(
        **{**quiet, "accelerator": "cpu", "default_root_dir": folder, "enable_checkpointing": False, **options}
    )


def test_a_trainer_sees_the_orders_of_the_epochs_it_counts(tmp_path):
    module, loader = Recorder(), numbered(20, seed=1, drop_last=True)
    trainer(tmp_path, max_epochs=3).fit(module, loader, numbered(8))
    assert module.seen == {epoch: loader.order(epoch).tolist() for epoch in range(3)}


def test_a_second_fit_begins_with_the_first_epoch_again(tmp_path):
    loader = numbered(20, seed=1)
    for _ in range(2):
        module = Recorder()
        trainer(tmp_path, max_epochs=2).fit(module, loader, numbered(8))
        assert module.seen == {epoch: loader.order(epoch).tolist() for epoch in range(2)}


def test_a_resumed_fit_goes_on_with_the_order_of_its_epoch(tmp_path):
    loader = numbered(20, seed=1)
    first = trainer(tmp_path, max_epochs=2)
    first.fit(Recorder(), loader, numbered(8))
    first.save_checkpoint(tmp_path / "two.ckpt")
    module = Recorder()
    trainer(tmp_path, max_epochs=4).fit(module, numbered(20, seed=1), numbered(8), ckpt_path=tmp_path / "two.ckpt")
    assert module.seen == {epoch: loader.order(epoch).tolist() for epoch in (2, 3)}
