from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dropsearch.core.errors import InputError
from dropsearch.datasets.splits import Purpose, split, stratified, validation_size

LABELS = st.lists(st.integers(0, 6), min_size=1, max_size=120).map(np.array)
SEEDS = st.integers(0, 2**40)
FRACTIONS = st.floats(0.05, 0.8).map(lambda f: round(f, 3))


@st.composite
def splits(draw):
    """Labels, the arguments of a split that is possible, and the split."""
    labels = np.array(draw(st.lists(st.integers(0, 6), min_size=15, max_size=120)))
    published = draw(st.integers(0, 5))
    fraction = draw(FRACTIONS)
    pool = len(labels) - (published or round(len(labels) / 5))
    at_most = pool - math.ceil(pool * fraction + 1e-9)
    assume(at_most >= 1)
    options = {
        "published_test": published,
        "train_size": draw(st.none() | st.integers(1, at_most)),
        "val_fraction": fraction,
        "seed": draw(SEEDS),
    }
    return labels, options, split(labels, **options)


@given(LABELS, st.data(), SEEDS)
def test_the_chosen_are_exactly_as_many_as_asked_for(labels, data, seed):
    size = data.draw(st.integers(0, len(labels)))
    assert stratified(labels, size, seed, "train").sum() == size


@given(LABELS, st.data(), SEEDS)
def test_each_class_keeps_its_share_within_one_example(labels, data, seed):
    size = data.draw(st.integers(0, len(labels)))
    chosen = stratified(labels, size, seed, "train")
    shares = np.bincount(labels, minlength=7) * size / len(labels)
    assert np.abs(np.bincount(labels[chosen], minlength=7) - shares).max() < 1


@given(LABELS, st.data(), SEEDS)
def test_the_same_seed_chooses_the_same(labels, data, seed):
    size = data.draw(st.integers(0, len(labels)))
    first, second = (stratified(labels, size, seed, "test") for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_seeds_and_purposes_choose_differently():
    labels = np.arange(1000) % 10
    chosen = [
        tuple(stratified(labels, 500, seed, purpose).tolist())
        for seed in (0, 1, 2**33)
        for purpose in get_args(Purpose)
    ]
    assert len(set(chosen)) == len(chosen)


def test_a_seed_chooses_the_same_on_every_machine():
    chosen = stratified(np.arange(30) % 3, 6, 5, "val")
    assert chosen.nonzero()[0].tolist() == [0, 4, 6, 8, 16, 29]


@given(splits())
def test_no_two_parts_share_an_example(case):
    labels, options, parts = case
    together = np.concatenate([parts.train, parts.val, parts.test])
    assert len(np.unique(together)) == len(together)
    if options["train_size"] is None:
        assert len(together) == len(labels)


@given(splits())
def test_the_published_test_split_is_the_test_set(case):
    labels, options, parts = case
    assume(options["published_test"])
    np.testing.assert_array_equal(parts.test, np.arange(len(labels))[-options["published_test"] :])


@given(splits(), SEEDS)
def test_no_seed_changes_the_test_set(case, seed):
    labels, options, parts = case
    np.testing.assert_array_equal(split(labels, **{**options, "seed": seed}).test, parts.test)


@given(splits())
def test_the_training_set_has_the_size_asked_for(case):
    labels, options, parts = case
    remaining = len(labels) - len(parts.test) - len(parts.val)
    assert len(parts.train) == (options["train_size"] or remaining)


@given(splits())
def test_validation_is_its_fraction_rounded_up(case):
    labels, options, parts = case
    fraction, train = options["val_fraction"], options["train_size"]
    exact = (len(labels) - len(parts.test)) * fraction if train is None else train * fraction / (1 - fraction)
    assert -1e-9 <= len(parts.val) - exact < 1 + 1e-9


@given(splits())
@settings(max_examples=50)
def test_a_split_is_a_function_of_its_seed(case):
    labels, options, parts = case
    again = split(labels, **options)
    np.testing.assert_array_equal(again.train, parts.train)
    np.testing.assert_array_equal(again.val, parts.val)


@pytest.mark.parametrize(
    ("pool", "train_size", "fraction", "size"),
    [
        (60000, None, 0.2, 12000),
        (60000, 10000, 0.2, 2500),
        (60000, 48000, 0.2, 12000),
        (10, 7, 0.3, 3),
        (9, None, 0.1, 1),
    ],
)
def test_a_fraction_counts_as_it_is_written(pool, train_size, fraction, size):
    assert validation_size(pool, train_size, fraction) == size


@given(st.integers(2, 500), FRACTIONS)
def test_the_largest_training_set_that_is_named_is_accepted(pool, fraction):
    assume(pool - math.ceil(pool * fraction + 1e-9) >= 1)
    with pytest.raises(InputError, match=r"data\.train_size must be at most") as caught:
        validation_size(pool, pool, fraction)
    at_most = int(str(caught.value).split("at most ")[1].split(",")[0])
    assert at_most + validation_size(pool, at_most, fraction) <= pool
    with pytest.raises(InputError):
        validation_size(pool, at_most + 1, fraction)


def test_a_validation_set_that_leaves_nothing_is_refused():
    with pytest.raises(InputError, match=r"data\.val_fraction must leave a training example of 3, got 0\.9"):
        validation_size(3, None, 0.9)
