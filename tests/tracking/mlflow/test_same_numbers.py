"""Numbers that claim to be the same are the same: in MLflow, results.json, all reports and the terminal."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from dataclasses import replace
from html import unescape
from statistics import fmean
from types import SimpleNamespace
from typing import Any

import pytest

from dropsearch.core.records import EpochMetrics, Monitor, best_arm
from dropsearch.report.html.page import page
from dropsearch.report.markdown import markdown
from dropsearch.report.numbers import loss, percent
from dropsearch.report.results import results
from dropsearch.report.tables.arms import arms_table, brief_tables, differences_table
from dropsearch.report.terminal import closing
from dropsearch.tracking.metrics import of_arm
from dropsearch.tracking.mlflow import payloads
from dropsearch.tracking.mlflow.worker import RunTree
from tests.report.conftest import Maker
from tests.tracking.tracked_studies import make_result


class Written:
    """Stands for MLflow's runs, and refuses a second value under one key."""

    def __init__(self) -> None:
        self.metrics: dict[str, dict[str, float]] = defaultdict(dict)
        self.client = SimpleNamespace(log_dict=lambda *_: None)

    def create(self, name: str, *_: Any, **__: Any) -> str:
        return name

    def write(self, run: str, points: Any = (), *_: Any, **__: Any) -> None:
        for name, value, _step in points:
            known = self.metrics[run].setdefault(name, value)
            assert known == value, f"{run} has two values of {name}"


@pytest.fixture(scope="module")
def found():
    make = Maker()
    arms = {name: make.arm(name) for name in ("none", "dropout", "batchnorm", "both")}
    lost = replace(arms["both"].test, acc=(math.nan, *arms["both"].test.acc[1:]))
    summary = make.with_evidence({**arms, "both": replace(arms["both"], test=lost)})
    measured = {
        name: replace(arm, measures={**arm.measures, "val_loss_best": arm.measures["gap_best"]})
        for name, arm in summary.evidence.arms.items()
    }
    return replace(summary, evidence=replace(summary.evidence, arms=measured))


@pytest.fixture(scope="module")
def tracked(found):
    runs = Written()
    tree = RunTree(runs, "parent")  # type: ignore[arg-type]
    for name, outcome in found.arms.items():
        tree.write_arm(name, outcome)
    tree.write_summary(found)
    tree.write_evidence(found.evidence)
    return runs.metrics


@pytest.fixture(scope="module")
def told(found):
    return json.loads(json.dumps(results(found)))


def finite_mean(values: Any) -> float:
    return fmean(value for value in values if value is not None and math.isfinite(value))


@pytest.mark.parametrize("arm", ["none", "dropout", "batchnorm", "both"])
def test_an_arm_has_one_set_of_numbers(found, tracked, told, arm):
    values, parent = told["arms"][arm], {}
    for name, value in tracked["parent"].items():
        if name.startswith(f"dropsearch/{arm}/"):
            parent[name.removeprefix(f"dropsearch/{arm}/")] = value
    winner = values["winner"]
    same = {
        "val_loss_best": values["best"]["val_loss"],
        "val_loss_confirmed": winner["mean_val_loss"],
        "test_acc": winner["mean_test_acc"],
        "test_loss": winner["mean_test_loss"],
        "trials": len(values["trials"]),
        "trials_complete": values["states"]["COMPLETE"],
        "trials_pruned": values["states"]["PRUNED"],
        "trials_fail": values["states"]["FAIL"],
    }
    for name, value in same.items():
        assert tracked[arm][f"dropsearch/{name}"] == pytest.approx(value, rel=1e-12), name
        assert parent.get(name, tracked[arm][f"dropsearch/{name}"]) == tracked[arm][f"dropsearch/{name}"], name
    assert parent.keys() == {"val_loss_confirmed", "val_acc_confirmed", "test_loss", "test_acc"}  # few charts
    assert values["gap"]["confirmed_val_loss"] == winner["mean_val_loss"]
    row = next(row for row in arms_table(found).rows if row[0] == arm)
    cells = dict(zip(arms_table(found).columns, row, strict=True))
    assert cells["confirmed\nval loss"] == loss(winner["mean_val_loss"])
    assert cells["search\nval loss"] == loss(values["gap"]["search_val_loss"])
    assert cells["test accuracy\nmean (95 % over seeds)"].startswith(percent(winner["mean_test_acc"]))
    assert cells["test\nloss"] == loss(winner["mean_test_loss"])


@pytest.mark.parametrize("arm", ["none", "dropout", "batchnorm", "both"])
def test_a_measure_has_one_number(tracked, told, arm):
    for name, values in told["evidence"]["arms"][arm]["measures"].items():
        if any(value is not None for value in values):
            mean = pytest.approx(finite_mean(values), rel=1e-12)
            assert tracked[arm][f"dropsearch/evidence/{name}"] == mean


def test_every_form_has_the_same_cells(found):
    whole = unescape(re.sub(r"<[^>]*>", "", page(found)))
    texts = {"markdown": markdown(found), "page": whole}
    for table in (arms_table(found), differences_table(found)):
        for row in table.rows:
            for name, text in texts.items():
                assert all(cell in text for cell in row), (name, row)
    for table in brief_tables(found):
        assert all(cell in closing(found) for row in table.rows for cell in row)


def test_differences_are_those_of_the_table(found, told):
    table = differences_table(found)
    for row, known in zip(table.rows, told["comparisons"], strict=True):
        low, high = known["ci95"]
        assert [float(part) for part in row[2].split(" to ")] == pytest.approx([100 * low, 100 * high], abs=0.0051)
        assert float(row[1]) == pytest.approx(100 * known["difference"], abs=0.0051)
        assert (row[table.columns.index("shown")] == "yes") is known["shown"]


def test_the_arm_to_use_is_one(found, told):
    assert told["recommended"] == best_arm(found.arms)
    first = told["answer"][0]
    winner = told["arms"][told["recommended"]]["winner"]
    assert f"{winner['mean_val_loss']:.4f}" in first
    assert f"{100 * winner['mean_test_acc']:.2f} %" in first


@pytest.mark.parametrize("name", ["val/loss", "val_acc", "dropsearch/seconds", "valid/f1", "train_loss"])
def test_what_a_module_logs_under_any_name_is_written_once(name):
    curve = tuple(
        EpochMetrics(epoch, 0.5, 0.6, 0.4 - epoch / 10, 0.7, 0.8, monitored=0.3 - epoch, logged={name: 0.3 - epoch})
        for epoch in range(3)
    )
    result = replace(make_result(), curve=curve)
    runs = Written()
    runs.write("trial", payloads.totals_of(result))
    names = [point[0] for point in payloads.totals_of(result)]
    assert len(names) == len(set(names))
    for point in curve:
        names = [each[0] for each in payloads.points_of(point)]
        assert len(names) == len(set(names))
    assert not {each[0] for each in payloads.totals_of(result)} & {each[0] for each in payloads.points_of(curve[0])}


@pytest.mark.parametrize("name", ["test/r2", "test_acc", "test r² <b>"])
def test_a_score_on_the_test_set_has_its_own_name(name):
    """Where a module is tested by another metric, and logs a test loss besides."""
    arm = Maker().arm("dropout")
    tested, losses, unknown = ((value,) * len(arm.winner.seeds) for value in (0.2, 0.75, math.nan))
    logged = {name: tested, "test_loss": losses}
    scores = replace(arm.test, loss=tested, acc=unknown, loss_name=name, logged=logged)
    arm = replace(arm, test=scores, monitor=Monitor("val/r2", "max"))
    told = json.loads(json.dumps(results(Maker().summary({"dropout": arm}))))["arms"]["dropout"]["winner"]
    assert told["test_loss"] == list(losses)
    assert told["mean_test_loss"] == pytest.approx(0.75)
    for tracked in (payloads.scores_of(arm), of_arm(arm)):
        assert tracked.get(name, tracked.get(payloads.key(name))) == pytest.approx(0.2)
        assert "test_loss" not in tracked
    assert [value for key, value, _ in payloads.answer_of("dropout", arm) if "test" in key] == pytest.approx([0.2])


@pytest.mark.parametrize("name", ["val/loss", "val_acc", "val/acc", "trials"])
def test_what_is_monitored_overwrites_no_other_number(name):
    arm = replace(Maker().arm("dropout"), monitor=Monitor(name, "min"))
    keys = [each.replace("/", "_") for each in payloads.scores_of(arm)]
    clashing = {each for each in keys if keys.count(each) > 1}
    scores = payloads.scores_of(arm)
    for each in clashing:
        assert len({value for key, value in scores.items() if key.replace("/", "_") == each}) == 1, each


@pytest.mark.parametrize("name", ["train_loss", "train_acc", "train_loss_as_trained"])
def test_what_a_module_logs_under_a_name_of_ours_is_not_the_best_of_ours(name):
    """`dropsearch/train_loss` is measured with dropout off, and the module's train_loss is not."""
    curve = tuple(
        EpochMetrics(epoch, 0.5, 0.6, 0.4 - epoch / 10, 0.7, 0.8, monitored=0.3 - epoch, logged={name: 2.0})
        for epoch in range(3)
    )
    written = dict(point[:2] for point in payloads.totals_of(replace(make_result(), curve=curve)))
    assert f"dropsearch/{name}_best" not in written
    assert written["dropsearch/val_loss_best"] == curve[-1].val_loss
