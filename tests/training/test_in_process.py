"""One process: a trial that calls `os._exit` fails, and the others go on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dropsearch.core.records import TrialSpec
from dropsearch.models import Classifier
from dropsearch.training.in_process import InProcessEngine
from dropsearch.training.protocols import Engine, TrainerSettings
from dropsearch.training.sequential import SequentialEngine
from dropsearch.training.vectorized.engine import VectorizedEngine
from tests.training.conftest import Queue, make_factory, make_source, make_specs

SETTINGS = TrainerSettings(max_epochs=2, accelerator="cpu")


def engine(width: int) -> Engine:
    factory, source = make_factory("mlp"), make_source("mlp")

    def make(spec: TrialSpec) -> Classifier:
        if spec.number == 1:
            os._exit(3)
        return factory(spec)

    return VectorizedEngine(make, source, SETTINGS, width) if width else SequentialEngine(make, source, SETTINGS)


@pytest.mark.parametrize("width", [0, 2])
@pytest.mark.falls_back
def test_only_the_trial_that_exits_its_process_fails(tmp_path: Path, width: int) -> None:
    feed, end = Queue(make_specs("mlp", 3)), os._exit
    InProcessEngine(engine(width), tmp_path).run(feed)
    assert {n: r.state for n, r in feed.results.items()} == {0: "COMPLETE", 1: "FAIL", 2: "COMPLETE"}
    assert feed.results[1].reason.startswith("SystemExit: os._exit(3) (test_in_process.py:")
    assert os._exit is end
    assert not list(tmp_path.iterdir())
