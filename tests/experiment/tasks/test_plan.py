"""What a plan says about frozen parts."""

from __future__ import annotations

import pytest

from dropsearch.experiment.tasks.plan import _frozen
from dropsearch.training.planning.memory import Memory
from dropsearch.training.planning.plan import Plan

LINE = "frozen      0.5 MiB held once for all rows instead of 2.0 MiB of copies"


@pytest.mark.parametrize(
    ("memory", "gain", "lines"),
    [
        (None, 0.0, []),
        (Memory(2**20, 2**18), 0.0, []),
        (Memory(2**20, 2**18, held_once=400), 0.0, []),
        (Memory(2**20, 2**18, held_once=2**19), 0.0, [LINE]),
        (Memory(2**20, 2**18, held_once=2**19), 1.75, [f"{LINE}, 1.8 times the speed of copies"]),
    ],
)
def test_it_says_what_holding_once_saves(memory: Memory | None, gain: float, lines: list[str]) -> None:
    plan = Plan("vectorized", 4, "measured", memory=memory, gain_of_holding_once=gain)
    assert list(_frozen(plan)) == lines
