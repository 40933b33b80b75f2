"""Fingerprints are stored without secrets, and compared apart from what is masked."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from dropsearch.core.errors import InputError
from dropsearch.core.printable import remember_secrets
from dropsearch.study.studies import check_studies, open_study, same

SECRET = "planted-0815"


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("a", "a", True),
        ("a", "b", False),
        (1, 1.0, True),
        ("***", SECRET, True),
        (f"https://host/{SECRET}?a.b", "https://host/***?a.b", True),
        (f"https://host/{SECRET}?a.b", "https://host/***?a+b", False),
        ({"x": ["***", 1]}, {"x": [SECRET, 1]}, True),
        ({"x": ["***", 1]}, {"x": [SECRET, 2]}, False),
        ({"x": "***"}, {"y": "***"}, False),
        (["***"], [], False),
        ("***", 3, False),
        ("*" * 200 + "a", "b" * 40, False),
        ("a***b***c", "a1c", False),
        ("a***b***c", "a1b2c", True),
        ("ab***b", "ab", False),
    ],
)
def test_what_is_masked_is_no_difference(one: Any, other: Any, equal: bool) -> None:
    assert same(one, other) is equal
    assert same(other, one) is equal


def test_a_study_holds_no_secret_and_goes_on_in_an_environment_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dropsearch.core.printable._known", {})
    storage = optuna.storages.InMemoryStorage()
    given = {"model.hub": SECRET, "model.width": 16, "code": {"user.Auth": "d1"}}
    for environment in ({"HUB_TOKEN": SECRET}, {}):
        remember_secrets({}, environment)
        study = open_study(storage, "s/none", given, None)
        check_studies(storage, {"s/none": given})
        if environment:
            assert study.user_attrs["fingerprint"] == {**given, "model.hub": "***"}
    with pytest.raises(InputError, match=r"model\.width"):
        check_studies(storage, {"s/none": {**given, "model.width": 17}})
