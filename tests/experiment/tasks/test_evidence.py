"""`task=evidence`: an earlier run is measured, and stays what it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dropsearch.core.errors import InputError
from dropsearch.experiment.tasks.evidence import _recorded_before, measured_finished_run
from dropsearch.experiment.tasks.search import searched
from dropsearch.study.store import StudyStore
from tests.experiment.conftest import MEASURED, Cli, composed

GIVEN = (*MEASURED, "arms=[none,both]")
NOT_FINISHED = "task=evidence needs a finished run, but study mlp-digits is not finished: "


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that measured nothing."""
    out = tmp_path_factory.mktemp("earlier") / "out"
    assert searched(composed(*GIVEN, "evidence=off", f"output_dir={out}")).evidence is None
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, which knows nothing of where it came from."""
    copy = Path(shutil.copytree(finished, tmp_path / "out"))
    journal = copy / "study.journal"
    journal.write_text(journal.read_text().replace(str(finished), str(copy)))
    return copy


def measure(out: Path, *overrides: str) -> Any:
    return measured_finished_run(composed(*GIVEN, "task=evidence", f"output_dir={out}", *overrides))


def test_a_run_that_measured_nothing_is_measured_later_as_it_would_have_been(finished: Path, tmp_path: Path):
    evidence = measure(finished).evidence
    at_once = searched(composed(*GIVEN, f"output_dir={tmp_path / 'again'}")).evidence
    assert evidence.arms == at_once.arms
    assert evidence.contrasts == at_once.contrasts


def test_it_trains_nothing_and_leaves_the_study_as_it_was(out: Path, monkeypatch: pytest.MonkeyPatch):
    journal = (out / "study.journal").read_bytes()
    monkeypatch.setattr(StudyStore, "ask", lambda *_: pytest.fail("a trial was asked for"))
    measure(out)
    assert (out / "study.journal").read_bytes() == journal


def test_results_and_duration_are_printed_as_before(out: Path):
    before = json.loads((out / "results.json").read_text())
    (out / "report.md").unlink()
    measure(out)
    after = json.loads((out / "results.json").read_text())
    for key in ("engine", "seconds", "arms", "comparisons"):
        assert before[key] == after[key], key
    report = (out / "report.md").read_text()
    assert "what dropout did in the winners was measured in" in report
    assert "task=search" in report
    assert "task=evidence" not in report
    assert after["config"]["task"] == "search"


def test_recorded_scores_are_reported_and_none_is_measured(out: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "dropsearch.experiment.user_module.TrialModules.test_scores", lambda *_: pytest.fail("the test set was opened")
    )
    assert all(arm.test.openings == 1 for arm in measure(out).arms.values())


def test_without_a_study_it_says_what_to_do_and_writes_nothing(cli: Cli):
    ended = cli(*GIVEN, "task=evidence", "output_dir=nowhere")
    assert ended.status == 2
    assert "needs an earlier run, but there is no study mlp-digits/none in nowhere/study.journal: use" in ended.err
    assert ended.err.count("\n") == 1
    assert ended.left == []


def test_an_arm_that_did_not_run_is_named(out: Path):
    with pytest.raises(InputError, match="there is no study mlp-digits/dropout in"):
        measure(out, "arms=[none,dropout]")


def test_another_configuration_under_the_same_name_is_refused(out: Path):
    with pytest.raises(InputError, match=r"trainer\.max_epochs must be the same as when study mlp-digits/none began"):
        measure(out, "trainer.max_epochs=3")


def test_retrainings_that_are_missing_are_counted(out: Path):
    with pytest.raises(InputError) as caught:
        measure(out, "confirm.seeds=3")
    assert str(caught.value).startswith(f"{NOT_FINISHED}2 retrainings of arm none are missing; repeat the command")


def test_a_test_set_that_was_not_opened_is_not_opened_now(out: Path):
    journal = out / "study.journal"
    kept = [line for line in journal.read_text().splitlines(keepends=True) if "note.test." not in line]
    journal.write_text("".join(kept))
    with pytest.raises(InputError) as caught:
        measure(out)
    assert str(caught.value).startswith(f"{NOT_FINISHED}arm none has not seen the test set; repeat the command")


def test_a_checkpoint_that_is_gone_is_named_before_anything_is_written(out: Path):
    shutil.rmtree(out / "checkpoints")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with pytest.raises(InputError, match=r"needs the checkpoints of the run, but .*\.ckpt is missing: repeat the"):
        measure(out)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_results_of_an_earlier_version_keep_their_engine_and_duration(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"engine": "vectorized", "seconds": 60}')
    assert _recorded_before(tmp_path) == {"engine": "vectorized", "seconds": 60.0, "trained_before": 0}
