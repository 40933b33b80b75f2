"""Errors of a user's code are told with their place and what they mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.data import default_collate

from dropsearch.core.user_errors import described, place_of_method


def caught(act: Callable[[], Any]) -> str:
    try:
        act()
    except Exception as error:
        return described(error)
    raise AssertionError("it did not fail")


def test_a_missing_key_is_told_with_its_place() -> None:
    said = caught(lambda: {}["model"])
    assert said.startswith("KeyError: there is no key 'model' (test_user_errors.py:")
    assert said.endswith(" in <lambda>)")


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: torch.nn.Linear(2, 2)(torch.ones(2, dtype=torch.float64)), "have different types"),
        (lambda: torch.ones(2) @ torch.ones(2, dtype=torch.float64), "have different types"),
        (lambda: default_collate([torch.ones(2), torch.ones(3)]), "a collate_fn that pads them"),
    ],
)
def test_what_torch_says_is_explained(act: Callable[[], Any], words: str) -> None:
    said = caught(act)
    assert words in said
    assert "test_user_errors.py" in said
    assert "\n" not in said


def test_an_error_of_a_library_has_the_users_line() -> None:
    def step() -> None:
        torch.nn.functional.cross_entropy(torch.ones(2, 3), torch.ones(3, dtype=torch.long))

    assert caught(step).endswith(" in step)")


def test_an_error_without_code_of_the_user_has_no_place() -> None:
    assert described(ValueError("x")) == "ValueError: x"


class Decorated:
    @torch.no_grad()
    def hook(self) -> None:
        pass


def test_place_of_a_decorated_method_is_its_own() -> None:
    assert place_of_method(Decorated(), "hook").startswith(" (test_user_errors.py:")
    assert place_of_method(Decorated(), "absent") == ""
