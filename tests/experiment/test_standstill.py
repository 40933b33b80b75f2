"""The terminal names a step before or after the search that makes no progress."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset

import dropsearch
from dropsearch.core import processes
from dropsearch.experiment import watchdog
from dropsearch.experiment.watchdog import named_if_still
from tests.user_modules import nets
from tests.user_modules.data import WithTest

Said = Callable[[str], str]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """Wait until the terminal says what matches a pattern, and return what it said; no process does anything."""
    monkeypatch.setattr(watchdog, "LOOK", 0.02)
    monkeypatch.setattr(watchdog, "QUIET", 0.1)
    monkeypatch.setattr(processes, "processor_time", lambda pid: 1.0)

    def wait(pattern: str) -> str:
        until, text = time.monotonic() + 300, capsys.readouterr().err
        while not re.search(pattern, text) and time.monotonic() < until:
            time.sleep(0.01)
            text += capsys.readouterr().err
        return text

    return wait


def test_a_step_that_waits_is_named_once(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "STALL", 0.3)
    with named_if_still("reading the data"):
        text = said("has taken .* so far(.|\n)*has taken .* so far")
    assert text.count("reading the data makes no progress: no processor time for 0 s; a data loader, or code") == 1
    assert "reading the data has taken 0 s so far: Ctrl-C stops the run" in text


def test_a_step_that_works_is_not_named(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "processor_time", lambda pid: time.monotonic() * 100)
    monkeypatch.setattr(watchdog, "STALL", 0.3)
    with named_if_still("reading the data"):
        assert "no progress" not in said("so far")


class Slow(Dataset[Any]):
    """Takes a while over its first example, as one that hangs does."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        if index == 0:
            time.sleep(0.4)
        return self.inner[index]


class Hanging(WithTest):
    """Whose training and test loaders take a while each time that they begin."""

    def train_dataloader(self) -> Any:
        return DataLoader(Slow(super().train_dataloader().dataset), batch_size=32)

    def test_dataloader(self) -> Any:
        return DataLoader(Slow(super().test_dataloader().dataset), batch_size=32)


def test_loaders_that_hang_before_and_after_the_search_are_named(said: Said, tmp_path: Path) -> None:
    dropsearch.search(
        nets.Tested,
        Hanging(),
        n_trials=1,
        max_epochs=1,
        confirm_top_k=1,
        confirm_seeds=2,
        accelerator="cpu",
        engine="sequential",
        arms=["none"],
        tracking="none",
        output_dir=tmp_path,
        overrides=["evidence=off"],
    )
    text = said("")
    assert "reading the data and inspecting the module makes no progress" in text
    assert "measuring the winners makes no progress" in text
