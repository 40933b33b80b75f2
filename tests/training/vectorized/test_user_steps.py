"""Metric objects, hooks, kept outputs and what steps ask their Trainer: the same vectorized as alone."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from dropsearch.core.global_state import seeded
from dropsearch.core.records import EpochMetrics, TrialSpec
from dropsearch.training.planning.plan import make_plan
from dropsearch.training.vectorized.stacked_state import StackedState
from tests.training.vectorized.laws import Case, assert_alike, assert_law_2, trials
from tests.user_modules import metrics
from tests.user_modules.data import Digits


@pytest.mark.parametrize(
    ("make", "monitor", "sites"),
    [
        (metrics.Template, "val/loss", ["net.2"]),
        (metrics.Collected, "val_running", ["model", "drop"]),
        (metrics.Outputs, "val_loss", ["model", "drop"]),
        (metrics.Warming, "val_loss", ["model", "drop"]),
        (metrics.Numbers, "val_loss", ["model", "drop"]),
        (metrics.Seeding, "val_loss", ["model", "drop"]),
        (metrics.Created, "val_loss", ["model", "drop"]),
        (metrics.Gathering, "val_loss", ["model", "drop"]),
        (metrics.Masking, "val_loss", ["model", "drop"]),
        (metrics.Validating, "val_loss", ["model", "drop"]),
        (metrics.Weighing, "val_loss", ["model", "drop"]),
        (metrics.Teaching, "val_loss", ["model", "drop"]),
    ],
)
def test_law_2_holds(make: type, monitor: str, sites: list[str], tmp_path: Path) -> None:
    assert_law_2(Case(make, Digits(), monitor), tmp_path, sites)


@pytest.mark.parametrize("make", [metrics.Warming, metrics.Outputs])
def test_law_2_holds_where_a_row_is_refilled(make: type, tmp_path: Path) -> None:
    def prune(spec: TrialSpec, metrics: EpochMetrics) -> bool:
        return spec.number == 1 and metrics.epoch == 0

    case, specs = Case(make, Digits()), trials(4)
    alone = case.sequential(specs, tmp_path, prune=prune)
    assert alone[1].state == "PRUNED"
    assert_alike(case.vectorized(specs, tmp_path, width=2, prune=prune), alone)


@pytest.mark.parametrize("make", [metrics.Template, metrics.Outputs])
def test_a_bad_neighbor_harms_nobody(make: type, tmp_path: Path) -> None:
    sites = ["net.2"] if make is metrics.Template else ["model", "drop"]
    case, specs = Case(make, Digits(), "val/loss" if make is metrics.Template else "val_loss"), trials(3, sites)
    bad = [TrialSpec("dropout", 9, 9, specs[0].rates, lr=1e30, weight_decay=0.0), *specs]
    beside = case.vectorized(bad, tmp_path, width=4)
    assert beside.pop(9).state == "FAIL"
    assert_alike(beside, case.sequential(specs, tmp_path))


def test_the_plan_measures_a_module_with_metrics_and_hooks() -> None:
    case, sites = Case(metrics.Template, Digits(), "val/loss"), ["net.2"]
    one, other = trials(2, sites)
    rows = case.source.in_rows()
    assert rows is not None
    settings = dataclasses.replace(case.settings, precision="32-true")

    def make(spec: TrialSpec) -> metrics.Template:
        with seeded(spec.seed):
            return metrics.Template(lr=spec.lr)

    plan = make_plan(make, rows, settings, [(one, other)], engine="vectorized", width=None, max_open=2)
    assert (plan.engine, plan.reason) == ("vectorized", "measured")


def test_steps_without_a_number_of_the_batch(tmp_path: Path) -> None:
    assert_law_2(Case(metrics.Uncounted, Digits()), tmp_path)


def test_metric_that_was_logged_before_is_measured_on_the_training_part(tmp_path: Path) -> None:
    (result,) = Case(metrics.Template, Digits(), "val/loss").sequential(trials(1, ["net.2"]), tmp_path).values()
    assert math.isfinite(result.curve[-1].train_loss)


def test_part_of_the_rows_writes_its_buffers_back() -> None:
    rows = StackedState(torch.nn.BatchNorm1d(2), 3, ["weight", "bias"], torch.device("cpu"), torch.float64)  # type: ignore[arg-type]
    part = rows.part([2, 0])
    part.buffers["running_mean"].copy_(torch.tensor([[1.0, 1.0], [2.0, 2.0]]))
    part.put_back()
    assert rows.buffers["running_mean"].tolist() == [[2.0, 2.0], [0.0, 0.0], [1.0, 1.0]]
    part.parameters["weight"].sum().backward()
    assert rows.parameters["weight"].grad.tolist() == [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]  # type: ignore[union-attr]
