"""Ranges of searched hyperparameters, and their combinations."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropsearch.core.records import Choice, Numbers, Range
from dropsearch.core.records.ranges import MANY, all_tried, combinations, first_value

WIDTHS = Numbers(16, 64, step=16)


@pytest.mark.parametrize(
    ("searched", "repeats"),
    [(Choice((0.1, 0.2)), True), (WIDTHS, True), (Numbers(0.5, 0.9), False), (Numbers(1, 10 * MANY, step=1), False)],
)
def test_repeats(searched: Range, repeats: bool):
    assert searched.repeats is repeats


@pytest.mark.parametrize(
    ("searched", "configured", "first"),
    [
        (Choice((32, 64, 128)), 128, 128),
        (Choice((32, 64, 128)), 100, 64),
        (Choice((32, 64)), None, 32),
        (Choice((None, 1.0)), None, None),
        (Choice((1, 2)), True, 1),
        (Choice(([64, 64], [128, 128])), [128, 128], [128, 128]),
        (Numbers(0.5, 0.99), 0.9, 0.9),
        (Numbers(0.5, 0.9), 0.95, 0.7),
        (Numbers(1e-4, 1e-2, log=True), 1.0, 1e-3),
        (Numbers(16, 128, step=1), 64, 64),
        (Numbers(16, 128, step=1), 64.5, 72),
        (WIDTHS, 32, 32),
        (WIDTHS, 33, 48),
        (Numbers(0.5, 0.99), "0.7", 0.745),
    ],
)
def test_first_value(searched: Range, configured: Any, first: Any):
    expected = pytest.approx(first) if isinstance(first, float) else first
    assert first_value(searched, configured) == expected
    assert searched.holds(first_value(searched, configured))


@given(low=st.integers(1, 50), steps=st.integers(1, 40), step=st.integers(1, 9), log=st.booleans())
def test_middle_and_tried_values_lie_in_the_range(low: int, steps: int, step: int, log: bool):
    searched = Numbers(low, low + steps * step, log, step)
    assert searched.holds(searched.middle)
    assert searched.tried == tuple(range(low, searched.high + 1, step))  # type: ignore[arg-type]
    assert {*searched.ends} <= {*searched.tried}


@given(sizes=st.lists(st.integers(2, 6), min_size=1, max_size=5), most=st.integers(1, 30))
def test_combinations_are_complete_or_contain_each_value(sizes: list[int], most: int):
    searched: dict[str, Range] = {f"k{n}": Choice(tuple(range(size))) for n, size in enumerate(sizes)}
    found = combinations(searched, most)
    assert len({tuple(values.items()) for values in found}) == len(found)
    assert {(key, value) for values in found for key, value in values.items()} == {
        (key, value) for key, given in searched.items() for value in given.ends
    }
    product = 1
    for size in sizes:
        product *= size
    assert len(found) == (product if product <= most else max(sizes))


@pytest.mark.parametrize(
    ("searched", "words"),
    [
        (Choice(("relu", "gelu", None)), "relu, gelu or null"),
        (Choice(([64, 64], [128])), "[64,64] or [128]"),
        (Choice((True,)), "true"),
        (Numbers(0.5, 0.99), "0.5 to 0.99"),
        (Numbers(1e-5, 0.1, log=True), "1e-05 to 0.1, log scale"),
        (Numbers(1, 4, step=1), "1 to 4, whole numbers"),
        (Numbers(16, 64, log=True, step=1), "16 to 64, whole numbers, log scale"),
        (Numbers(16, 64, step=16), "16 to 64, in steps of 16"),
    ],
)
def test_a_range_has_words_for_people(searched: Range, words: str):
    assert searched.in_words == words


def test_no_ranges_have_one_empty_combination():
    assert combinations({}, 8) == ({},)


def test_many_combinations_contain_each_value():
    searched: dict[str, Range] = {key: Numbers(1, 100, step=1) for key in ("a", "b")}
    assert len(all_tried(searched)) == 100
    assert len(all_tried({"a": Numbers(1, MANY + 1, step=1)})) == 2


def test_a_range_of_integers_holds_no_other_numbers():
    assert not Numbers(1, 4).holds(2.5)
    assert Numbers(1, 4).holds(2)
    assert Numbers(1.0, 4.0).holds(2.5)
