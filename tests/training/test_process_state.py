"""A trial leaves the process as it found it."""

from __future__ import annotations

import os
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dropsearch.core.global_state import generator_states, process_state_kept
from dropsearch.core.records import TrialSpec
from dropsearch.training.protocols import Engine, TrainerSettings
from dropsearch.training.sequential import SequentialEngine
from tests.training.conftest import Queue, make_factory, make_source, make_specs

SETTINGS = TrainerSettings(max_epochs=1, accelerator="cpu")


def change(folder: Path) -> None:
    os.chdir(folder)
    os.environ["CHANGED"] = "1"
    os.environ.pop("KEPT", None)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)


def state() -> tuple[object, ...]:
    deterministic = torch.are_deterministic_algorithms_enabled()
    return os.getcwd(), dict(os.environ), torch.get_default_dtype(), torch.is_grad_enabled(), deterministic


def test_state_is_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "1")
    before = state()
    with suppress(ValueError), process_state_kept():
        change(tmp_path)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        raise ValueError("of the trial")
    assert state() == before


def test_a_trial_leaves_the_process_as_it_found_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEPT", "1")
    factory, source = make_factory("mlp"), make_source("mlp")

    def make(spec: TrialSpec) -> Any:
        module = factory(spec)
        ends = module.on_train_end

        def on_train_end() -> None:
            change(tmp_path)
            torch.set_default_dtype(torch.float64)
            torch.set_grad_enabled(False)
            ends()

        module.on_train_end = on_train_end  # type: ignore[method-assign]
        return module

    engine: Engine = SequentialEngine(make, source, SETTINGS)
    feed = Queue(make_specs("mlp", 2))
    before, generators = state(), generator_states()
    engine.run(feed)
    assert {result.state for result in feed.results.values()} == {"COMPLETE"}
    assert state() == before
    assert generator_states() == generators
