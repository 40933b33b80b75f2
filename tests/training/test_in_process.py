"""One process: a trial that calls `os._exit` fails, and the others go on."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from dropsearch.core.processes import crash_of, this_process
from dropsearch.core.records import TrialSpec
from dropsearch.models import Classifier
from dropsearch.training.engines import InProcessEngine
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


def test_a_crash_after_a_trial_leaves_a_note(tmp_path: Path) -> None:
    factory, source = make_factory("mlp"), make_source("mlp")

    def make(spec: TrialSpec) -> Classifier:
        if spec.number == 1:  # a Trainer has come to its end in this process
            (tmp_path / "name").write_text(this_process())
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            ctypes.string_at(0)
        return factory(spec)

    if (pid := os.fork()) == 0:
        InProcessEngine(SequentialEngine(make, source, SETTINGS), tmp_path).run(Queue(make_specs("mlp", 2)))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) < 0
    assert crash_of(tmp_path, (tmp_path / "name").read_text()) == "Segmentation fault"
