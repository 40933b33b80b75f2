"""`PartitionedFeed` hands out one partition at a time, respects the limit of open trials and loses no trial."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropsearch.core.records import INTERRUPTED, TrialResult, TrialSpec
from dropsearch.training.vectorized.partitioned_feed import BY_ROW, PartitionedFeed, partition
from tests.training.conftest import Queue


def specs(widths: Sequence[int]) -> list[TrialSpec]:
    return [
        TrialSpec("none", number, number, {}, lr=1e-3, weight_decay=0.0, hyperparameters={"model.width": width})
        for number, width in enumerate(widths)
    ]


def ask_all(partitioned: PartitionedFeed) -> list[int]:
    """Ask for all available trials of the current partition, one by one; return their widths."""
    widths = []
    while specs := partitioned.ask(1):
        widths += [spec.hyperparameters["model.width"] for spec in specs]
    return widths


@pytest.mark.parametrize("key", BY_ROW)
def test_optimizer_options_share_a_partition(key: str):
    one, other = ({"model.width": 8, key: value} for value in (1, 2))
    first, second = (
        TrialSpec("none", 0, 0, {}, 1e-3, 0.0, hyperparameters=hyperparameters) for hyperparameters in (one, other)
    )
    assert partition(first) == partition(second)


def test_largest_partition_comes_first():
    feed = Queue(specs([1, 2, 2, 1, 2, 3, 2]))
    partitioned = PartitionedFeed(feed, max_waiting=5)
    assert partitioned.next_partition()
    assert ask_all(partitioned) == [2, 2, 2, 2]
    assert partitioned.next_partition()
    assert ask_all(partitioned) == [1, 1]
    assert partitioned.next_partition()
    assert ask_all(partitioned) == [3]
    assert not partitioned.next_partition()


def test_waiting_trials_are_limited():
    feed = Queue(specs([1] * 3 + [2] * 20 + [1]))
    partitioned = PartitionedFeed(feed, max_waiting=4)
    partitioned.next_partition()
    assert ask_all(partitioned) == [1, 1, 1]
    assert feed.asked == 3 + 4


def test_single_partition_asks_for_no_extra_trials():
    feed = Queue(specs([1] * 20))
    partitioned = PartitionedFeed(feed, max_waiting=4)
    partitioned.next_partition()
    assert len(partitioned.ask(6)) == 6
    assert feed.asked == 6


@given(
    widths=st.lists(st.integers(1, 3), max_size=25),
    max_waiting=st.integers(1, 6),
    most=st.one_of(st.none(), st.integers(1, 6)),
    rows=st.integers(1, 5),
)
def test_every_trial_trains_once_within_its_partition(widths: list[int], max_waiting: int, most: int | None, rows: int):
    feed = Queue(specs(widths), most_at_once=most)
    partitioned = PartitionedFeed(feed, max_waiting)
    while partitioned.next_partition():
        running: list[TrialSpec] = []
        while True:
            running += partitioned.ask(rows - len(running))
            assert most is None or feed.asked - len(feed.results) <= most
            assert feed.asked - len(feed.results) - len(running) <= max_waiting
            assert len({partition(spec) for spec in running}) <= 1
            if not running:
                break
            partitioned.tell([TrialResult(running.pop(0), "COMPLETE", (), 0.0)])
    assert {result.state for result in feed.results.values()} <= {"COMPLETE"}
    assert len(feed.results) == len(widths)


def test_waiting_trials_end_as_interrupted():
    feed = Queue(specs([1, 2, 1, 2, 2, 1]))
    partitioned = PartitionedFeed(feed, max_waiting=6)
    partitioned.next_partition()
    (spec,) = partitioned.ask(1)
    partitioned.interrupt_waiting()
    assert {result.reason for result in feed.results.values()} == {INTERRUPTED}
    assert set(feed.results) == set(range(6)) - {spec.number}


def test_cancelled_feed_is_not_asked():
    feed = Queue(specs([1, 2]), stop_after=0)
    assert not PartitionedFeed(feed, max_waiting=2).next_partition()
    assert feed.asked == 0


def test_requeued_trials_come_first():
    feed = Queue(specs([1, 1, 1, 1]))
    partitioned = PartitionedFeed(feed, max_waiting=2)
    partitioned.next_partition()
    first = partitioned.ask(1)
    partitioned.requeue_open()
    partitioned.next_partition()
    assert partitioned.ask(1) == first


def test_admit_all_keeps_the_order():
    partitioned = PartitionedFeed(Queue(specs([1, 2, 3, 1])), max_waiting=3)
    partitioned.next_partition()
    partitioned.admit_all()
    assert ask_all(partitioned) == [1, 2, 3, 1]
