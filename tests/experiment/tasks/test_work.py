"""`task=work`: a process that only trains, and leaves report and tracker to another."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from dropsearch.core.errors import InputError
from dropsearch.experiment.context import build_context
from dropsearch.experiment.studies import arm_studies, mark_folder
from dropsearch.experiment.tasks import run
from dropsearch.experiment.tasks.work import WorkerLines
from dropsearch.study.storage import open_storage
from tests.experiment.conftest import LIGHT, composed, trials_told

TWO_ARMS = (*LIGHT, "arms=[none,dropout]")


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The folder of a study that a worker completed, and how many trials it trained."""
    out = tmp_path_factory.mktemp("worked") / "out"
    with trials_told() as trained:
        assert run(composed(*TWO_ARMS, "task=work", f"output_dir={out}")) == 0
    return out, len(trained)


def test_worker_completes_a_study_without_report(worked: tuple[Path, int]):
    out, trained = worked
    assert trained == 2 * (3 + 2 * 2)
    assert {path.name for path in out.iterdir()} == {"study.journal", "study.journal.lock", "checkpoints"}


def test_its_results_wait_for_a_tracker(worked: tuple[Path, int]):
    context = build_context(composed(*TWO_ARMS, f"output_dir={worked[0]}"))
    storage = open_storage(None, worked[0] / "study.journal")
    arms = [arm_studies(context, storage, name) for name in ("none", "dropout")]
    assert sum(len(arm.untracked_results()) for arm in arms) == worked[1]


def test_run_that_reports_trains_nothing_more(worked: tuple[Path, int]):
    out, _ = worked
    with trials_told() as trained:
        assert run(composed(*TWO_ARMS, f"output_dir={out}")) == 0
    assert trained == []
    assert (out / "report.html").exists()


def test_worker_of_another_study_is_refused(worked: tuple[Path, int]):
    with pytest.raises(InputError, match=r"seed must be the same as when study .* began \(0\), got 1"):
        run(composed(*TWO_ARMS, "task=work", "seed=1", f"output_dir={worked[0]}"))


def test_worker_needs_no_tracker(tmp_path: Path):
    given = [line for line in TWO_ARMS if line != "tracking=none"]
    unreachable = "tracking.uri=http://127.0.0.1:9"
    assert run(composed(*given, "task=work", unreachable, f"output_dir={tmp_path}", "study.n_trials=1")) == 0


def test_one_line_a_minute():
    seconds, stream = [0.0], io.StringIO()
    lines = WorkerLines(lambda: "study s has 3 of 9 trials", lambda: seconds[0], stream)
    for seconds[0] in range(0, 150, 10):
        lines.count(1)
        lines.if_due()
    printed = stream.getvalue().splitlines()
    assert [line.partition("; ")[2] for line in printed] == [
        "7 trials, 7.0 a minute; study s has 3 of 9 trials",
        "13 trials, 6.5 a minute; study s has 3 of 9 trials",
    ]


def on_database(folder: Path, name: str = "out") -> list[str]:
    return [*TWO_ARMS, "study.n_trials=1", f"study.storage=sqlite:///{folder}/s.db", f"output_dir={folder / name}"]


def test_worker_waits_for_the_run_that_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    def mark_late(seconds: float) -> None:
        context = build_context(composed(*on_database(tmp_path)))
        mark_folder(context, open_storage(f"sqlite:///{tmp_path}/s.db", None))

    monkeypatch.setattr("dropsearch.experiment.tasks.work.sleep", mark_late)
    with trials_told() as trained:
        assert run(composed(*on_database(tmp_path), "task=work")) == 0
    assert len(trained) == 2 * (1 + 2)
    assert "waits for the run that reports (task=search), at most 10 minutes" in capsys.readouterr().err


def test_worker_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    monkeypatch.setattr("dropsearch.experiment.tasks.work.MOST_WAIT", 0.0)
    with trials_told() as trained:
        assert run(composed(*on_database(tmp_path), "task=work")) == 0
    assert len(trained) == 2
    assert "leaves the retrainings to processes that share output_dir" in capsys.readouterr().err
