"""The waiting room: one partition at a time, no more open than may be, and nobody left behind."""

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


def taken(partitioned: PartitionedFeed) -> list[int]:
    """All that can be had of the running partition now, by width."""
    found = []
    while specs := partitioned.ask(1):
        found += [spec.hyperparameters["model.width"] for spec in specs]
    return found


@pytest.mark.parametrize("key", BY_ROW)
def test_what_optimisers_take_row_by_row_divides_no_array(key: str):
    one, other = ({"model.width": 8, key: value} for value in (1, 2))
    first, second = (
        TrialSpec("none", 0, 0, {}, 1e-3, 0.0, hyperparameters=hyperparameters) for hyperparameters in (one, other)
    )
    assert partition(first) == partition(second)


def test_trials_of_the_largest_partition_come_first_and_the_others_wait():
    feed = Queue(specs([1, 2, 2, 1, 2, 3, 2]))
    partitioned = PartitionedFeed(feed, places=5)
    assert partitioned.begin()
    assert taken(partitioned) == [2, 2, 2, 2]
    assert partitioned.begin()
    assert taken(partitioned) == [1, 1]
    assert partitioned.begin()
    assert taken(partitioned) == [3]
    assert not partitioned.begin()


def test_no_more_trials_wait_than_there_are_places():
    feed = Queue(specs([1] * 3 + [2] * 20 + [1]))
    partitioned = PartitionedFeed(feed, places=4)
    partitioned.begin()
    assert taken(partitioned) == [1, 1, 1]
    assert feed.asked == 3 + 4


def test_a_room_whose_trials_are_all_alike_asks_for_no_more_than_are_trained():
    feed = Queue(specs([1] * 20))
    partitioned = PartitionedFeed(feed, places=4)
    partitioned.begin()
    assert len(partitioned.ask(6)) == 6
    assert feed.asked == 6


@given(
    widths=st.lists(st.integers(1, 3), max_size=25),
    places=st.integers(1, 6),
    most=st.one_of(st.none(), st.integers(1, 6)),
    rows=st.integers(1, 5),
)
def test_every_trial_is_trained_once_beside_its_like_and_no_more_are_open_than_may_be(
    widths: list[int], places: int, most: int | None, rows: int
):
    feed = Queue(specs(widths), most_at_once=most)
    partitioned = PartitionedFeed(feed, places)
    while partitioned.begin():
        running: list[TrialSpec] = []
        while True:
            running += partitioned.ask(rows - len(running))
            assert most is None or feed.asked - len(feed.results) <= most
            assert feed.asked - len(feed.results) - len(running) <= places
            assert len({partition(spec) for spec in running}) <= 1
            if not running:
                break
            partitioned.tell([TrialResult(running.pop(0), "COMPLETE", (), 0.0)])
    assert {result.state for result in feed.results.values()} <= {"COMPLETE"}
    assert len(feed.results) == len(widths)


def test_trials_that_wait_when_all_is_stopped_are_told_as_interrupted():
    feed = Queue(specs([1, 2, 1, 2, 2, 1]))
    partitioned = PartitionedFeed(feed, places=6)
    partitioned.begin()
    (spec,) = partitioned.ask(1)
    partitioned.leave()
    assert {result.reason for result in feed.results.values()} == {INTERRUPTED}
    assert set(feed.results) == set(range(6)) - {spec.number}


def test_a_room_that_is_cancelled_asks_for_nothing():
    feed = Queue(specs([1, 2]), stop_after=0)
    assert not PartitionedFeed(feed, places=2).begin()
    assert feed.asked == 0


def test_trials_that_begin_again_come_before_new_ones():
    feed = Queue(specs([1, 1, 1, 1]))
    partitioned = PartitionedFeed(feed, places=2)
    partitioned.begin()
    first = partitioned.ask(1)
    partitioned.begin_again()
    partitioned.begin()
    assert partitioned.ask(1) == first


def test_trained_alone_all_partitions_are_let_in_in_their_order():
    partitioned = PartitionedFeed(Queue(specs([1, 2, 3, 1])), places=3)
    partitioned.begin()
    partitioned.admit_all()
    assert taken(partitioned) == [1, 2, 3, 1]
