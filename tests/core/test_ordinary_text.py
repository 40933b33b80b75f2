"""Numbers, paths, words and names are not taken for passwords and tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from dropsearch.core.ordinary_text import is_name, is_number, is_path, may_be_secret, words_in

PATHS = [
    "/home/ann/Google Drive/project_1",
    "/elsewhere/aB3dEfGh1JkLmNoPqRs/x",
    "~/keys/service.json",
    "~ann/keys",
    "../keys/id_rsa",
    "keys/service.json",
    "Drive/project_1",
    "C:\\Users\\ann",
    "D:/data",
]
SECRETS = [
    "hunter2-4711",
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "/9jAbCdEfGhIjKlMnOpQrSt/x+==",
    "0123456789abcdef",
    "correct-horse-battery-staple",
    "s3cr3t-of-ann",
    "open-sesame!",
    "open-sesame-1",
    "abcdefghijklmnopqrstuvwx",
    "$ecretP4ssw0rd!",
    "/8fGk+2jLz9QpXw7",
]


@pytest.mark.parametrize("text", PATHS)
def test_paths_need_not_exist(text: str) -> None:
    assert is_path(text)
    assert not may_be_secret(text)


def test_a_file_of_any_name_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hunter2-4711").touch()
    monkeypatch.chdir(tmp_path)
    assert is_path("hunter2-4711")


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_no_paths_and_no_numbers(text: str) -> None:
    assert may_be_secret(text)


@pytest.mark.parametrize("text", ["12345678", "-1.25, 3.50", "2024-01-15 10:00", "10.0.12.4:8080"])
def test_numbers(text: str) -> None:
    assert is_number(text)
    assert not may_be_secret(text)


@pytest.mark.parametrize(
    "text", ["", "short-1", "database", "jupyter-hub", "NONE_NEEDED", "$OTHER_VARIABLE", "${oc.env:KEY}"]
)
def test_other_text_that_is_no_secret(text: str) -> None:
    assert not may_be_secret(text)


@pytest.mark.parametrize("text", ["project_1", "resnet18-cifar10", "run of 2024", "torch.optim.AdamW", "a/b_2"])
def test_names(text: str) -> None:
    assert is_name(text)


@pytest.mark.parametrize("text", ["hunter2-4711", "0123456789abcdef", "s3cr3t", "<|endoftext|>", ""])
def test_what_is_no_name(text: str) -> None:
    assert not is_name(text)


def test_words_are_keys_values_and_their_parts() -> None:
    found = {*words_in({"data": {"root": "/x/project_1", "parts": ["a b", 3]}})}
    assert {"data", "root", "/x/project_1", "project_1", "parts", "a b", "a", "b"} <= found
