"""How long a run takes, told beforehand and as it happens; a clock that only forward passes move is the judge."""

from __future__ import annotations

import io
import re
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import dropsearch
from dropsearch.config.schema import Config
from dropsearch.experiment import engines, paces, pilot, run_progress
from dropsearch.experiment.build import make_output_folder
from dropsearch.experiment.context import build_context
from dropsearch.experiment.run_progress import planned_stages
from dropsearch.experiment.tasks.search import searched
from dropsearch.models import MLP
from dropsearch.report.progress import Forecast
from dropsearch.report.progress.lines import Lines
from dropsearch.tracking.tracker import Tracker
from tests.experiment.conftest import Cli, composed
from tests.fake_clock import Clock
from tests.user_modules import data, nets

STUDY = (
    "model.hidden=[16]",
    "data.train_size=120",
    "data.batch_size=30",
    "trainer.accelerator=cpu",
    "arms=[none,both]",
    "trainer.max_epochs=5",
    "study.n_trials=6",
    "confirm.top_k=2",
    "confirm.seeds=2",
    "evidence.monte_carlo=[1,2]",
    "evidence.severities=1",
    "pruner=none",
    "tracking=none",
    "engine.processes=1",
)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock, forward = Clock(), MLP.forward

    def counted(self: MLP, *given: Any) -> Any:
        clock.now += 1
        return forward(self, *given)

    monkeypatch.setattr(MLP, "forward", counted)
    for name in ("REPORT_SECONDS", "TRACKING_SECONDS"):
        monkeypatch.setattr(run_progress, name, 0.0)
    monkeypatch.setattr(pilot, "PILOT_SECONDS", 1e6)
    monkeypatch.setattr(pilot, "ONCE_SECONDS", 1e6)
    return clock


def planned(config: Config, clock: Clock) -> dict[str, float | None]:
    context = build_context(config)
    plan = engines.plan(context)
    with closing(engines.engine(context, plan, lambda _: None)) as engine:
        stages, _ = planned_stages(context, plan, engine, clock)
    return Forecast(stages).by_stage()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
def test_a_plan_agrees_with_what_happens(
    engine: str, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    width = "engine.width=4" if engine == "vectorized" else "engine.width=auto"
    config = composed(*STUDY, "trainer.max_epochs=3", f"output_dir={tmp_path}", f"engine={engine}", width)
    expected = planned(config, clock)
    monkeypatch.setattr(run_progress, "evidence_pace", lambda *_, **__: 0.0)
    at: dict[str, float] = {}

    class Stages(Lines):
        def begin(self, now: Any) -> None:
            at[now.stage] = clock.now

    monkeypatch.setattr(run_progress, "views", lambda _: [Stages(io.StringIO())])
    searched(config)
    names, ends = list(at), [*list(at.values())[1:], clock.now]
    took = {name: end - at[name] for name, end in zip(names, ends, strict=True)}
    assert sum(filter(None, expected.values())) == pytest.approx(sum(took.values()), rel=0.25)
    for name in ("search", "confirm", "evidence"):
        assert expected[name] == pytest.approx(took[name], rel=0.25), (name, expected, took)


def test_a_slow_sequential_module_is_measured_by_its_batches(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pilot, "PILOT_SECONDS", 2.0)
    config = composed(*STUDY, f"output_dir={tmp_path}", "engine=sequential")
    # Four batches an epoch, of which the pilot ends none: the evaluations are not seen.
    assert planned(config, clock)["search"] == pytest.approx(2 * 6 * 5 * 4, rel=0.5)


def test_the_estimate_does_not_open_the_test_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = build_context(composed(*STUDY, f"output_dir={tmp_path}"))

    def opened(*_: Any) -> None:
        raise AssertionError("the test set is opened")

    monkeypatch.setattr(type(context.source), "test_dataloader", opened)
    assert pilot.evidence_pace(context, thorough=True) > 0


def test_imports_are_no_part_of_the_estimate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, seconds = Clock(), iter([1000, *[7] * 10])

    def measure(_: Any) -> None:
        clock.now += next(seconds)

    monkeypatch.setattr(pilot, "MEASURES", {"slow at first": SimpleNamespace(of_curve=False, measure=measure)})
    context = build_context(composed(*STUDY, f"output_dir={tmp_path}", "confirm.seeds=20"))
    assert pilot.evidence_pace(context, clock) == 7
    assert pilot.evidence_pace(context, clock, thorough=True) == 7


def test_a_continued_run_counts_what_remains(tmp_path: Path) -> None:
    given = (*STUDY, "engine=sequential", "evidence=off", "trainer.max_epochs=1", f"output_dir={tmp_path}")
    searched(composed(*given, "study.n_trials=2"))
    context = build_context(composed(*given, "study.n_trials=4"))
    make_output_folder(context.folder)
    from dropsearch.experiment.studies import arm_studies
    from dropsearch.study.storage import open_storage

    storage = open_storage(None, tmp_path / "study.journal")
    studies = [arm_studies(context, storage, arm) for arm in context.config.arms]
    assert run_progress.missing_trials(context, studies) == {"search": 4, "confirm": 0}


def test_what_a_run_waits_for_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def info(self: Tracker) -> dict[str, str]:
        asked.extend(re.findall(r"^\[(\w+)\]", capsys.readouterr().err, re.MULTILINE))
        return {}

    monkeypatch.setattr(Tracker, "info", property(info))
    few = ("arms=[none]", "study.n_trials=1", "confirm.top_k=1", "trainer.max_epochs=1", "engine=sequential")
    searched(composed(*STUDY, *few, f"output_dir={tmp_path}"))
    assert [stage for stage in asked if stage != "plan"] == [
        "search", "confirm", "test", "compare", "evidence", "report"
    ], "a tracker that is slow to open its run keeps nothing waiting before the report"  # fmt: skip


@pytest.mark.slow
def test_a_run_tells_its_stages_and_no_end_before_the_end(cli: Cli, tmp_path: Path) -> None:
    few = ("engine=sequential", "study.n_trials=2", "confirm.top_k=1", "trainer.max_epochs=1")
    ended = cli(*STUDY, *few, f"output_dir={tmp_path / 'out'}")
    stages = re.findall(r"^\[(\w+)\]", ended.err, re.MULTILINE)
    assert [stage for stage in stages if stage != "plan"] == [
        "search",
        "confirm",
        "test",
        "compare",
        "evidence",
        "report",
    ]
    assert "[evidence] what dropout does in the winners is measured; evidence=off leaves it out" in ended.err
    assert re.search(r"^\[plan\] about .* in all: .*evidence", ended.err, re.MULTILINE)
    assert "100 %" not in ended.err


def test_the_plan_tells_the_time_of_all_stages(cli: Cli) -> None:
    ended = cli("task=plan", *STUDY, "engine=sequential", "tracking=mlflow")
    assert re.search(r"^duration +about .* in all: .*report", ended.out, re.MULTILINE | re.DOTALL)
    assert max(map(len, ended.out.splitlines())) <= 80
    assert re.search(r"^expected +about [\d,]+ trials of 5 epochs an hour", ended.out, re.MULTILINE)
    assert ended.left == []


@pytest.mark.parametrize(("rows", "length"), [(10, 1.0), (8, 1.6), (5, 1.0), (3, 1.2), (1, 1.0)])
def test_a_search_is_as_long_as_its_clock_allows(rows: int, length: float) -> None:
    # Ten trials are proposed with the same results: with eight rows, two of them train while six rows are empty.
    config = composed("study.n_trials=30", "pruner=none", "trainer.max_epochs=7")
    assert paces.clock_length(config, rows) == pytest.approx(length, rel=0.02)
    config.budget = "20m"  # nothing waits
    assert paces.clock_length(config, rows) == paces.waves(30, rows)
    config.budget = "500 trials"
    assert paces.clock_length(config, rows) == pytest.approx(length, rel=0.02)


def test_the_length_of_a_search_is_that_of_its_trials_in_a_feed() -> None:
    config = composed("study.n_trials=30", "trainer.max_epochs=20", "pruner.warmup_epochs=5")
    share = paces.searched_share(config)
    durations = paces._expected_durations(config)
    assert sum(durations) / 30 / 20 == pytest.approx(share, rel=0.05)
    assert 1.0 <= paces.clock_length(config, 10) <= paces.clock_length(config, 8) < 1.6


def test_empty_rows_take_time_where_trials_train_one_by_one() -> None:
    assert paces.Pace(2.0, idle=1.0).of(10, paces.waves(9, 8)) == pytest.approx(2.0 * 16 / 9)
    assert paces.Pace(2.0, idle=0.0).of(10, paces.waves(9, 8)) == 2.0


def test_a_stream_of_unknown_length_has_no_expected_pace_and_is_searched(tmp_path: Path) -> None:
    found = dropsearch.search(
        nets.LitNet, data.Streamed(), output_dir=tmp_path, n_trials=2, max_epochs=1, accelerator="cpu", arms=["none"],
        confirm_top_k=1, confirm_seeds=1, tracking="none", engine="vectorized", overrides=["evidence=off"],
    )  # fmt: skip
    assert found.summary.engine.endswith("vectorized, on cpu")
    assert [trial.state for trial in found.summary.arms["none"].trials] == ["COMPLETE"] * 2
