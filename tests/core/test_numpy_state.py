"""The state of NumPy's global generator is put back exactly, as NumPy itself reads it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from dropsearch.core import numpy_state
from dropsearch.core.numpy_state import numpy_kept


@pytest.fixture(autouse=True)
def _numpy_as_before() -> Iterator[None]:
    bits, state = np.random.get_bit_generator(), np.random.get_state(legacy=False)
    yield
    np.random.set_bit_generator(bits)
    np.random.set_state(state)


@pytest.mark.parametrize("pending", [0, 1])
@pytest.mark.parametrize("drawn", [0, 1, 623, 624, 700])
def test_the_state_is_put_back_with_the_second_number_of_a_pair(pending: int, drawn: int) -> None:
    np.random.seed(3)
    np.random.randint(2, size=drawn)
    np.random.standard_normal(pending)
    before = repr(np.random.get_state())
    put_back = numpy_kept()
    assert repr(np.random.get_state()) == before
    np.random.seed(5)
    np.random.standard_normal(3)
    put_back()
    assert repr(np.random.get_state()) == before
    assert np.random.get_state()[3] == pending


def test_states_differ_where_only_the_second_number_of_a_pair_was_drawn() -> None:
    np.random.seed(3)
    np.random.standard_normal()
    before = numpy_state.numpy_state()
    assert numpy_state.numpy_state() == before
    np.random.standard_normal()
    assert numpy_state.numpy_state() != before


def test_another_kind_of_generator_is_put_back_by_numpy() -> None:
    other = np.random.PCG64(1)
    np.random.set_bit_generator(other)
    before = repr(np.random.get_state(legacy=False))
    put_back = numpy_kept()
    np.random.random()
    put_back()
    assert repr(np.random.get_state(legacy=False)) == before
