"""A run within a budget, on a clock that moves with the work alone."""

from __future__ import annotations

import dataclasses
import time
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropsearch.config.budget import Budget, parsed
from dropsearch.config.compose import typed
from dropsearch.config.schema import ConfirmConfig
from dropsearch.core.errors import InputError
from dropsearch.core.processes import Stopwatch
from dropsearch.core.records import ComparisonMetric
from dropsearch.experiment import run_budget
from dropsearch.experiment.allocation import LADDER, Allocation, Costs, choose, in_words
from dropsearch.experiment.budget import BudgetedTraining
from dropsearch.experiment.paces import TEST_SHARE, Pace
from dropsearch.experiment.run_budget import RunBudget
from dropsearch.experiment.run_progress import run_stages
from dropsearch.experiment.tasks.search import searched
from dropsearch.report.progress import Forecast, Progress
from dropsearch.study.selection import retraining_count
from tests.experiment.conftest import LIGHT, Cli, composed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20m", Budget(1200.0)),
        ("20 min", Budget(1200.0)),
        ("2h", Budget(7200.0)),
        ("1h30m", Budget(5400.0)),
        ("0.5h", Budget(1800.0)),
        ("90s", Budget(90.0)),
        ("500 trials", Budget(trials=500)),
        ("1 trial", Budget(trials=1)),
        ("0 trials", None),
        ("0m", None),
        ("20", None),
        ("20 minutes ago", None),
        ("-5m", None),
        ("", None),
    ],
)
def test_what_a_budget_says(text: str, expected: Budget | None) -> None:
    assert parsed(text) == expected


COST = st.floats(1e-3, 1e3)


@given(st.integers(1, 6), COST, COST, COST, COST, st.floats(1, 1e6))
def test_what_is_chosen_fits_and_twice_as_much_is_no_less(
    arms: int, search: float, confirm: float, model: float, fixed: float, available: float
) -> None:
    costs = Costs(arms, search, confirm, model, fixed)
    chosen, twice = choose(costs, available), choose(costs, 2 * available)
    if chosen is None:
        assert costs.of(LADDER[0]) > available
        return
    assert costs.of(chosen) <= available * (1 + 1e-9)
    assert twice is not None
    assert twice.seeds >= chosen.seeds
    assert twice.n_trials >= chosen.n_trials


def test_seeds_that_can_show_something_come_before_trials() -> None:
    costs = Costs(4, 1.0, 1.4)
    chosen = choose(costs, 120)
    assert chosen == Allocation(18, 1, 8)


def test_the_words_name_what_is_detected() -> None:
    assert in_words(Allocation(45, 3, 10), 6, 0.5, "points") == (
        "45 trials an arm, the best 3 on 10 seeds; differences of 0.77 points or more are detected with 80 % power"
    )
    assert "detect no difference" in in_words(Allocation(3, 1, 2), 6)


IDLE = 0.5


class Simulated:
    """The arms of a run whose trainings move a clock; at the end of a round of an arm some of its rows are empty."""

    def __init__(
        self,
        search: float,
        confirm: float,
        arms: int = 4,
        slower_from: float = 1e9,
        factor: float = 1.0,
        rows: int = 1,
    ):
        self.now, self.rows = 0.0, rows
        self.search_trial, self.confirm_trial = search, confirm
        self.slower_from, self.factor = slower_from, factor
        self.studies = [
            SimpleNamespace(search=SimpleNamespace(results=lambda n=n: self.searched[n])) for n in range(arms)
        ]
        self.searched: list[list[int]] = [[] for _ in range(arms)]
        self.confirmed = [0] * arms
        self.seeds: tuple[int, ...] = ()
        config = SimpleNamespace(
            seed=0,
            study=SimpleNamespace(n_trials=30),
            confirm=SimpleNamespace(top_k=3, seeds=10, screening_seeds=4),
            budget="x",
        )
        self.context = SimpleNamespace(config=config)

    def cancelled(self) -> bool:
        return False

    def _work(self, trials: int, each: float) -> None:
        """Train some trials of an arm, generation by generation."""
        for begun in range(0, trials, self.rows):
            count = min(self.rows, trials - begun)
            seconds = each * (count + IDLE * (self.rows - count))
            self.now += seconds * (self.factor if self.now >= self.slower_from else 1.0)

    def search(self, watch: Any) -> None:
        for done in self.searched:
            missing = max(self.context.config.study.n_trials - len(done), 0)
            self._work(missing, self.search_trial)
            done += [1] * missing

    def _wanted(self, seeds: int) -> int:
        top_k = min(self.context.config.confirm.top_k, self.context.config.study.n_trials)
        return retraining_count(top_k, seeds, 4)

    def retrainings_left(self) -> int:
        return len(self.studies) * self._wanted(len(self.seeds)) - sum(self.confirmed)

    def confirm(self, watch: Any) -> None:
        for wanted in (self._wanted(min(len(self.seeds), 4)), self._wanted(len(self.seeds))):
            for arm, done in enumerate(self.confirmed):
                self._work(max(wanted - done, 0), self.confirm_trial)
                self.confirmed[arm] = max(wanted, done)


MODEL, FIXED = 0.5, 10.0


def believed_costs(arms: Simulated, believed: float = 1.0) -> Costs:
    each = arms.search_trial * believed, arms.confirm_trial * believed
    return Costs(4, *each, MODEL, FIXED, rows=arms.rows, confirm_rows=arms.rows, idle=IDLE)


def run(arms: Simulated, seconds: float, believed: float = 1.0) -> tuple[float, BudgetedTraining]:
    """Return the seconds that a simulated run takes, with the report, and with evidence if there is time for it."""
    budgeted = BudgetedTraining(arms, believed_costs(arms, believed), seconds, lambda: arms.now)  # type: ignore[arg-type]
    budgeted.train(lambda feed: feed, Progress())
    models = 4 * len(arms.seeds)
    end = models * MODEL * (1.0 if budgeted.affords_evidence(models) else TEST_SHARE / (1 + TEST_SHARE))
    return arms.now + end + FIXED, budgeted


@pytest.mark.parametrize("seconds", [60, 300, 1200, 7200])
@pytest.mark.parametrize("believed", [0.5, 0.8, 1.0, 1.3, 2.0])
def test_a_run_ends_in_time_though_its_speed_was_misjudged(seconds: float, believed: float) -> None:
    took, _ = run(Simulated(0.6, 1.0), seconds, believed)
    assert took <= 1.1 * seconds
    assert took >= 0.7 * seconds or seconds == 7200  # where nothing more can be bought


@pytest.mark.parametrize("seconds", [100, 300, 800])
@pytest.mark.parametrize("rows", [2, 5, 10, 12, 32])
def test_rows_that_stay_empty_are_planned_for(seconds: float, rows: int) -> None:
    arms = Simulated(0.2, 0.35, rows=rows)
    first = choose(believed_costs(arms), 0.97 * seconds)
    took, budgeted = run(arms, seconds)
    assert first is not None
    assert budgeted.allocation.n_trials == pytest.approx(first.n_trials, rel=0.1)
    assert 0.85 * seconds <= took <= seconds


@pytest.mark.parametrize("rows", [4, 10, 32])
@pytest.mark.parametrize("believed", [0.5, 2.0])
def test_a_misjudged_speed_of_rows_is_mended(rows: int, believed: float) -> None:
    took, _ = run(Simulated(0.2, 0.35, rows=rows), 300, believed)
    assert 0.7 * 300 <= took <= 1.1 * 300


def test_few_trials_are_searched_at_once() -> None:
    costs = Costs(4, 1.0, 1.4, rows=10, idle=0.5)
    assert costs.rounds(2) == [2]
    assert costs.rounds(18) == [14, 18]
    assert costs.rounds(40) == [16, 30, 40]
    assert costs.search(2) == 4 * (2 + 0.5 * 8)


@pytest.mark.parametrize("at", [0.1, 0.3])
def test_a_machine_that_slows_down_gets_less(at: float) -> None:
    took, budgeted = run(Simulated(0.6, 1.0, slower_from=at * 600, factor=2.0), 600)
    undisturbed, full = run(Simulated(0.6, 1.0), 600)
    assert took <= 1.1 * 600
    assert budgeted.allocation.n_trials * budgeted.allocation.seeds < full.allocation.n_trials * full.allocation.seeds
    assert undisturbed <= 1.1 * 600


def test_twice_the_budget_buys_no_less_than_this_one_did() -> None:
    _, budgeted = run(Simulated(0.6, 1.0), 300, believed=2.0)
    bought, twice = budgeted.allocation, budgeted.twice
    assert all(a <= b for a, b in zip(dataclasses.astuple(bought), dataclasses.astuple(twice), strict=True))
    assert twice != bought


def test_every_arm_gets_the_same() -> None:
    arms = Simulated(0.6, 1.0, slower_from=50, factor=3.0)
    run(arms, 400)
    assert len({len(done) for done in arms.searched}) == 1


def test_a_budget_that_is_too_small_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"^budget must be enough for 2 trials an arm .* about \d+ min here: set a larger"
    ):
        run(Simulated(10.0, 15.0), 60)


@pytest.mark.parametrize("slow", [1.0, 3.0])
def test_a_busy_machine_has_more_time_for_reports(slow: float, monkeypatch: pytest.MonkeyPatch) -> None:
    paces: Any = {"search": Pace(1.0), "confirm": Pace(1.0)}
    monkeypatch.setattr(run_budget, "evidence_pace", lambda *_, **__: 0.0)
    monkeypatch.setattr(run_budget, "measuring_threads", lambda _: nullcontext())
    context: Any = SimpleNamespace(config=composed("tracking=none"))
    found, idle = (run_budget.measured_costs(context, paces, each) for each in (slow, 1.0))
    assert found.fixed == slow * idle.fixed
    assert found.at(1.0) == idle


@pytest.mark.parametrize(("before", "after"), [(1.0, 3.0), (3.0, 1.0)])
def test_a_machine_that_others_begin_or_end_to_use_still_ends_in_time(before: float, after: float) -> None:
    """What follows the confirmation is not what was measured before the search."""
    arms, late = Simulated(0.6, 1.0), 20.0

    def slowness() -> float:
        return before if arms.now < late else after

    costs = dataclasses.replace(believed_costs(arms), slow=1.0).at(before)
    budgeted = BudgetedTraining(arms, costs, 400, lambda: arms.now, slowness)  # type: ignore[arg-type]
    budgeted.train(lambda feed: feed, Progress())
    end = 4 * len(arms.seeds) * MODEL + FIXED
    assert 0.8 * 400 <= arms.now + after * end <= 1.1 * 400


@pytest.mark.parametrize("model", [0.5, 2.0, 4.0])
def test_seeds_that_can_show_something_come_before_evidence(model: float) -> None:
    arms = Simulated(0.6, 1.0, slower_from=40, factor=1.5)
    costs = dataclasses.replace(believed_costs(arms), model=model)
    budgeted = BudgetedTraining(arms, costs, 160, lambda: arms.now)  # type: ignore[arg-type]
    budgeted.train(lambda feed: feed, Progress())
    assert len(arms.seeds) >= 8
    tested = 4 * len(arms.seeds) * model * TEST_SHARE / (1 + TEST_SHARE)
    assert arms.now + tested + FIXED <= 1.1 * 160


@pytest.mark.parametrize(("count", "enough"), [(2, 6), (4, 8), (6, 9)])
def test_evidence_is_given_up_for_no_more_seeds_than_arms_need(count: int, enough: int) -> None:
    """Nor is time left over that more seeds could use once it is given up."""
    arms = Simulated(0.6, 1.0, arms=count)
    costs = dataclasses.replace(believed_costs(arms), arms=count, model=1.0)
    budgeted = BudgetedTraining(arms, costs, 28 * count + 12, lambda: arms.now, enough_seeds=enough)  # type: ignore[arg-type]
    budgeted.train(lambda feed: feed, Progress())
    assert len(arms.seeds) >= enough
    models = count * len(arms.seeds)
    end = models * (1.0 if budgeted.affords_evidence(models) else TEST_SHARE / (1 + TEST_SHARE))
    assert 0.85 <= (arms.now + end + FIXED) / (28 * count + 12) <= 1.1


def test_a_moment_of_load_does_not_make_a_measured_cost_less() -> None:
    arms, looks = Simulated(0.6, 1.0), iter([4.0])
    costs = dataclasses.replace(believed_costs(arms), model=2.0, slow=4.0)
    budgeted = BudgetedTraining(arms, costs, 400, lambda: arms.now, lambda: next(looks, 1.0))  # type: ignore[arg-type]
    budgeted.train(lambda feed: feed, Progress())
    models = 4 * len(arms.seeds)
    evidence = models * 2.0 if budgeted.affords_evidence(models) else 0.0
    assert arms.now + evidence + FIXED <= 1.1 * 400


def test_evidence_leaves_the_time_of_the_report() -> None:
    arms = Simulated(0.6, 1.0)
    budgeted = BudgetedTraining(arms, believed_costs(arms), 100, lambda: arms.now)  # type: ignore[arg-type]
    arms.now = 75.0
    assert budgeted.affords_evidence(30)  # 0.8 x 30 x 0.5 s, and 10 s for the report
    assert not budgeted.affords_evidence(60)


def test_the_first_estimate_of_a_run_is_that_of_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_budget, "evidence_pace", lambda *_, **__: 2.0)
    monkeypatch.setattr(run_budget, "measuring_threads", lambda _: nullcontext())
    config = composed("tracking=mlflow", "budget=10m", "pruner=none")
    context: Any = SimpleNamespace(config=config, source=SimpleNamespace(has_test=True))
    paces: Any = {"search": Pace(0.5, 1.0, 1, 1.0), "confirm": Pace(0.7, 1.0, 1, 1.0)}
    costs = run_budget.measured_costs(context, paces, 3.0)
    stages = run_stages(context, {"search": 120, "confirm": 72}, 99.0, 2.0, paces, 3.0)
    left = Forecast(stages).by_stage()
    assert left["search"] == pytest.approx(120 * costs.search_trial)
    assert left["confirm"] == pytest.approx(72 * costs.confirm_trial)
    assert (left["report"] or 0.0) + (left["tracking"] or 0.0) == pytest.approx(costs.fixed)


@pytest.mark.slow
def test_a_number_of_trials_is_kept(tmp_path: Path) -> None:
    config = composed(*LIGHT, "arms=[none,dropout]", f"output_dir={tmp_path}", "budget=30 trials")
    summary = searched(config)
    trained = sum(len(arm.trials) + sum(len(each.results) for each in arm.confirmed) for arm in summary.arms.values())
    assert 27 <= trained <= 30
    assert len({len(arm.trials) for arm in summary.arms.values()}) == 1
    assert any(
        note.startswith("the budget of 30 trials bought") and "twice the budget" in note for note in summary.notes
    )


@pytest.mark.parametrize(
    ("metric", "unit"),
    [
        (ComparisonMetric(), "points"),
        (ComparisonMetric("val_acc", "val_loss", "val acc", percent=False, unit="%"), "points"),
        (ComparisonMetric("val_mae", "val_loss", "val mae", percent=False, unit="kWh"), "kWh"),
        (ComparisonMetric("val_mae", "val_loss", "val mae", percent=False), "val mae"),
    ],
)
def test_the_note_has_the_unit_of_the_tables(metric: ComparisonMetric, unit: str) -> None:
    config: Any = SimpleNamespace(budget="500 trials", arms=["none", "dropout"], confirm=ConfirmConfig())
    context: Any = SimpleNamespace(config=config, modules=SimpleNamespace(comparison_metric=metric))
    engine: Any = None
    budget = RunBudget(context, engine, Stopwatch())
    budget.training = SimpleNamespace(describe=lambda contrasts, spread, of: of)  # type: ignore[assignment]
    assert budget.note({}) == f"the budget of 500 trials bought {unit}"


def test_reading_the_configuration_counts_in_the_budget(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[float] = []

    def slow(raw: Any) -> Any:
        time.sleep(0.2)
        return typed(raw)

    def run(config: Any, watch: Stopwatch) -> int:
        found.append(watch.elapsed())
        return 0

    monkeypatch.setattr("dropsearch.cli.typed", slow)
    monkeypatch.setattr("dropsearch.experiment.tasks.run", run)
    assert cli("budget=2m").status == 0
    assert found[0] >= 0.2


def test_a_budget_that_is_none_is_named(cli: Cli) -> None:
    ended = cli("budget=20")
    assert ended.status == 2
    assert 'budget must be a duration or a number of trials, such as 20m, 2h or "500 trials", got "20"' in ended.err
    assert ended.left == []


def test_the_ladder_rises() -> None:
    for below, above in pairwise(LADDER):
        assert all(a <= b for a, b in zip(dataclasses.astuple(below), dataclasses.astuple(above), strict=True))
