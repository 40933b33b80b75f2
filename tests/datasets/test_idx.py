from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dropsearch.datasets import idx
from tests.datasets.conftest import idx_bytes

UNSIGNED = arrays.arrays(np.uint8, arrays.array_shapes(max_dims=4, max_side=5))


@given(UNSIGNED)
def test_a_file_written_by_hand_is_read_as_it_was(array):
    np.testing.assert_array_equal(idx.parse(idx_bytes(array)), array)


@given(UNSIGNED)
def test_the_header_is_the_published_one(array):
    assert idx.header(array.shape) + array.tobytes() == idx_bytes(array)


@given(UNSIGNED, st.data())
def test_a_file_that_ends_early_is_refused_wherever_it_ends(array, data):
    content = idx_bytes(array)
    with pytest.raises(ValueError, match="must"):
        idx.parse(content[: data.draw(st.integers(0, len(content) - 1))])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "magic number 00 00 08, got nothing"),
        (bytes((0, 0, 13, 1, 0, 0, 0, 1, 7)), "got 00 00 0d 01"),
        (bytes((0, 0, 8, 0)), "magic number"),
        (b"\x89PNG\r\n\x1a\n", "got 89 50 4e 47"),
        (bytes((0, 0, 8, 2, 0, 0, 0, 1)), "2 dimensions"),
        (bytes((0, 0, 8, 1, 0, 0, 0, 1, 7, 7)), "must have 1 elements by its dimensions, got 2"),
        (bytes((0, 0, 8, 3, *[255] * 12, 7)), "got 1"),
    ],
)
def test_what_is_no_idx_file_of_bytes_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        idx.parse(content)
