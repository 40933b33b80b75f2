from __future__ import annotations

import hashlib

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from dropsearch.datasets import mnist1d

# Of the arrays that the author's package (mnist1d 0.0.2.post1, make_dataset with its defaults) returns, training
# part first: labels as int64, signals in units of 1e-5, so that another libm's last digit does not matter.
SIGNALS = "57f841354e9abf5209aa63bd3e39d8a65bce0e6321873d8cdde1d0bc8d285f68"
LABELS = "6feec4a017698c7fe237c8854cbd2e338c6dd5c16240f6fa79daefaaa129e169"


@pytest.fixture(scope="module")
def generated():
    return mnist1d.generate()


def test_signals_and_labels_are_those_of_the_authors_package(generated):
    signals, labels, _ = generated
    rounded = np.round(signals * 1e5).astype("<i4")
    assert hashlib.sha256(rounded.tobytes()).hexdigest() == SIGNALS
    assert hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest() == LABELS


def test_it_has_the_published_sizes(generated):
    signals, labels, test = generated
    assert signals.shape == (5000, 40)
    assert labels.shape == (5000,)
    assert test == 1000


def test_each_class_has_as_many_examples(generated):
    np.testing.assert_array_equal(np.bincount(generated[1]), [500] * 10)


def test_it_leaves_the_global_generators_unchanged():
    np.random.seed(7)
    expected = np.random.rand()
    np.random.seed(7)
    mnist1d.generate()
    assert np.random.rand() == expected


def test_logistic_regression_reaches_what_was_published(generated):
    signals, labels, test = generated
    model = LogisticRegression(max_iter=200).fit(signals[:-test], labels[:-test])
    assert model.score(signals[-test:], labels[-test:]) == pytest.approx(0.32, abs=0.04)
