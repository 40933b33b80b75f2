"""The page of what is compared with plain Lightning names every case, and there are enough of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.parity import (
    test_batches,
    test_checkpoints,
    test_learning_rate,
    test_loaders,
    test_modules,
    test_optimizers,
    test_settings,
)

PAGE = (Path(__file__).parents[2] / "docs" / "parity.md").read_text()
TABLE: dict[str, Iterable[str]] = {
    "test_settings": [*test_settings.CASES, *test_settings.BY_MODULE],
    "test_optimizers": test_optimizers.MODULES,
    "test_modules": [kind.__name__ for kind in test_modules.KINDS],
    "test_learning_rate": [kind.__name__ for kind in test_learning_rate.KINDS],
    "test_checkpoints": test_checkpoints.CASES,
    "test_batches": test_batches.FORMS,
    "test_loaders": test_loaders.FORMS,
}
"""What is compared, by the file that does it."""


@pytest.mark.parametrize("name", TABLE)
def test_the_page_names_what_is_compared(name: str) -> None:
    (row,) = re.findall(rf"^\| (\d+) \| (.*) \| `tests/parity/{name}.py` \|$", PAGE, re.MULTILINE)
    assert (int(row[0]), row[1].split(", ")) == (len(list(TABLE[name])), [*TABLE[name]])


def test_there_are_enough() -> None:
    assert sum(len(list(cases)) for cases in TABLE.values()) > 80
