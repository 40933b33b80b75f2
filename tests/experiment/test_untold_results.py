"""A study whose results cannot be recorded ends in one line with status 1, and leaves no results."""

from __future__ import annotations

import pytest

from dropsearch.core.records import TrialResult
from dropsearch.study.store import StudyStore
from dropsearch.training.protocols import Feed
from dropsearch.training.sequential import SequentialEngine
from tests.experiment.conftest import LIGHT, Cli, Ended

pytestmark = pytest.mark.slow
LITTLE = (*(each for each in LIGHT if not each.startswith("engine")), "arms=[none]", "output_dir=out")


def assert_ends(ended: Ended, line: str) -> None:
    """Check that a run ends in one line, with a study and without results."""
    assert ended.status == 1
    assert ended.err.splitlines()[-1].startswith(f"dropsearch: {line}"), ended.err
    assert "Traceback" not in ended.err + ended.out
    assert "out/study.journal" in ended.left
    assert not {"out/results.json", "out/report.md"} & {*ended.left}


@pytest.mark.parametrize("processes", [1, 2])
def test_a_result_that_is_no_json(cli: Cli, monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    def ending(self: StudyStore, result: TrialResult) -> None:
        raise TypeError("Object of type Tensor is not JSON serializable")

    monkeypatch.setattr(StudyStore, "_ending", ending)
    ended = cli(*LITTLE, "engine=vectorized", f"engine.processes={processes}")
    assert_ends(ended, "no result can be recorded of trial none/")
    assert "TypeError: Object of type Tensor is not JSON serializable" in ended.err


def test_an_engine_that_ends_before_its_trials(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(self: SequentialEngine, feed: Feed) -> None:
        feed.ask(1)

    monkeypatch.setattr(SequentialEngine, "run", run)
    ended = cli(*LITTLE, "engine=sequential", "engine.processes=1")
    assert_ends(ended, "the engine ended before the trials of arm none that it had begun: repeat the command")
