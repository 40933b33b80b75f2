"""Records as JSON values and back."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import Any

import pytest

from dropsearch.core.records.codec import decode, encode


@dataclass(frozen=True)
class Inner:
    values: tuple[float, ...] = ()
    pair: tuple[int, str] = (1, "a")


@dataclass(frozen=True)
class Outer:
    inner: Inner | None
    by_name: dict[str, Any] = field(default_factory=dict)
    nested: tuple[tuple[float, float], ...] = ()
    number: float = math.nan


CASES = [
    Outer(None, number=0.0),
    Outer(Inner((1.0, math.inf, -math.inf)), {"a": [1, 2.5, None, True]}, ((0.1, 0.2),), 1e-300),
    Outer(Inner((), (7, "x")), {"deep": {"key": "value"}}, (), -0.0),
]


@pytest.mark.parametrize("case", CASES)
def test_a_record_comes_back_as_it_was(case: Outer):
    assert decode(Outer, json.loads(json.dumps(encode(case), allow_nan=False))) == case


def test_what_is_not_a_number_comes_back_so():
    assert math.isnan(decode(Outer, encode(Outer(None))).number)
