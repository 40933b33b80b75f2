"""What is said of arms that are compared by another metric than the accuracy of our own models."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest

from dropsearch.core.records import ComparisonMetric, Interval, Monitor
from dropsearch.report.figures.axes import score_label
from dropsearch.report.figures.registry import write_figures
from dropsearch.report.numbers import Scale, loss
from dropsearch.report.results import results
from dropsearch.report.tables.arms import arms_table, differences_table
from dropsearch.report.terminal import closing
from dropsearch.report.text.caveats import caveats
from dropsearch.report.text.verdict import answer
from dropsearch.stats.comparisons import compared

LESS = ComparisonMetric("val_loss", "val_loss", "val loss", percent=False, higher_is_better=False)
MORE = ComparisonMetric("test_f1", "test_loss", "test f1", percent=False, higher_is_better=True)


def judged(make: Any, comparison_metric: ComparisonMetric, monitor: Monitor, **values: list[float]) -> Any:
    """A summary whose arms have these scores, one a seed."""
    arms = {}
    for name, scores in values.items():
        arm = replace(make.arm(name, seeds=len(scores)), monitor=monitor)
        by_example = tuple((score,) * 30 for score in scores)
        arms[name] = replace(arm, test=replace(arm.test, loss=tuple(scores), loss_by_example=by_example))
    return make.summary(
        arms, comparison_metric=comparison_metric, monitor=monitor, comparisons=compared(arms, comparison_metric)
    )


LOW, HIGH = [0.40, 0.41, 0.42, 0.40] * 2, [0.61, 0.62, 0.63, 0.60] * 2


def test_less_of_a_score_is_worse_where_more_is_better(make):
    found = answer(judged(make, MORE, Monitor("val_f1", "max"), none=LOW, dropout=HIGH))
    assert found[0].startswith("Use dropout with rates")
    assert "; test f1 0.6150 (95 % CI over seeds" in found[0]
    assert found[2].startswith("Plain is worse by 0.2100 (95 % CI")


def test_more_of_it_is_better_only_where_more_is_better(make):
    comparison_metric = replace(MORE, metric="test_mae", label="test mae", higher_is_better=False)
    found = answer(judged(make, comparison_metric, Monitor("val_mae"), none=LOW, dropout=HIGH))
    assert "Better on the test set, which has no say in the choice: plain by 0.2100" in found[1]


def test_a_difference_names_the_score_that_has_no_unit(make):
    near = [low + step for low, step in zip(LOW, (0.01, -0.01) * 4, strict=True)]
    for unit, expected in (("", " test f1, "), ("kWh", " kWh, ")):
        tied = answer(judged(make, replace(MORE, unit=unit), Monitor("val_f1", "max"), none=LOW, dropout=near))[1]
        assert re.match(rf"Not distinguishable from it: plain \([+-]?[\d.]+{expected}95 % CI", tied), tied


def test_without_a_test_set_the_validation_of_fresh_seeds_is_compared(make):
    found = judged(make, LESS, Monitor(), none=LOW, dropout=HIGH)
    assert {comparison.metric for comparison in found.comparisons} == {"val_loss"}
    winner = found.arms["dropout"].winner
    assert found.comparisons[0].differences[0] == winner.val_loss[0] - found.arms["none"].winner.val_loss[0]
    assert "test" not in " ".join(answer(found)).replace("tested", "")


def test_what_is_monitored_is_shown_with_its_own_sign_and_name(make):
    found = judged(make, MORE, Monitor("val_f1", "max"), none=LOW, dropout=HIGH)
    table = arms_table(found)
    assert table.title == "Arms: more val_f1 is better"
    arm = found.arms["dropout"]
    values = results(found)["arms"]["dropout"]
    assert values["winner"]["mean_val_loss"] == -arm.winner.mean_val_loss
    assert values["best"]["monitored"] == -arm.best.best.objective
    assert values["winner"]["judged"] == HIGH
    assert differences_table(found).title == "Paired differences in test f1"
    assert "best val_f1 " in answer(found)[0]


def test_every_line_fits_and_every_figure_is_drawn(make, tmp_path):
    found = judged(make, MORE, Monitor("val_f1", "max"), none=LOW, dropout=HIGH)
    shown = [line for line in closing(found).splitlines() if not line.startswith("  ")]
    assert max(map(len, shown)) <= 80
    assert [f.name for f in write_figures(found, tmp_path)] == [
        "curves",
        "best_so_far",
        "rates",
        "differences",
        "found",
    ]


def test_values_are_shown_as_logged_with_the_unit_of_the_user(make):
    metric = replace(MORE, label="test acc", unit="%", loss_unit="")
    low, high = [[100 * score for score in scores] for scores in (LOW, HIGH)]
    found = judged(make, metric, Monitor("val_acc", "max", "%"), none=low, dropout=high)
    assert "; test acc 61.50 % (95 % CI over seeds" in answer(found)[0]
    assert re.match(r"Plain is worse by 2[01][.\d]* points \(95 % CI", answer(found)[2])
    assert arms_table(found).title == "Arms: more val_acc (%) is better"
    assert differences_table(found).title == "Paired differences in test acc: percentage points"
    plain = replace(found, comparison_metric=replace(metric, unit=""), monitor=Monitor("val_acc", "max"))
    said = " ".join([*answer(plain), *caveats(plain), str(arms_table(plain))])
    assert "61.50 (95 % CI over seeds" in said
    assert "points" not in said
    assert "nats" not in said


@pytest.mark.parametrize(
    ("unit", "value", "difference"),
    [("", "", ""), ("%", " %", " points"), ("dB", " dB", " dB")],
)
def test_unit_of_the_user(unit: str, value: str, difference: str):
    scale = Scale(replace(MORE, unit=unit))
    assert scale.score(Interval(37.5, 30.0, 40.0)) == f"37.5{value} (95 % CI over seeds 30.0 to 40.0{value})"
    assert scale.unit == difference


def test_loss_of_unknown_unit_has_none_in_figures(make):
    found = judged(make, replace(LESS, loss_unit=""), Monitor(), none=LOW, dropout=HIGH)
    known = replace(found, comparison_metric=replace(LESS, loss_unit="m²"))
    assert (score_label(found), score_label(known)) == ("validation loss", "validation loss (m²)")


def test_no_accuracy_is_said_to_be_above_a_hundred_per_cent_or_below_zero():
    wide = Interval(0.5, -0.25, 1.125)
    assert Scale(ComparisonMetric()).score(wide) == "50.00 % (95 % CI over seeds 0.00 to 100.00 %)"
    assert Scale(LESS).score(wide) == "0.50 (95 % CI over seeds -0.25 to 1.12)"


@pytest.mark.parametrize(
    ("interval", "written"),
    [
        (Interval(0.0123456, 0.0112, 0.0134), ["+0.0123", "+0.0112", "+0.0134"]),
        (Interval(-1.2e8, -3.4e8, 1.1e8), ["-1.2e+08", "-3.4e+08", "+1.1e+08"]),
        (Interval(2.5e-9, 1.0e-9, 4.0e-9), ["+2.5e-09", "+1.0e-09", "+4.0e-09"]),
        (Interval(12345.6, 12000.0, 12700.0), ["+12350", "+12000", "+12700"]),
        (Interval(0.0, 0.0, 0.0), ["0", "0", "0"]),
        (Interval(0.5, math.nan, math.nan), ["+0.5", "-", "-"]),
        (Interval(-0.00001, -0.2, 0.2), ["0.00", "-0.20", "+0.20"]),
    ],
)
def test_differences_have_two_digits_of_their_interval(interval, written):
    assert Scale(LESS).differences(interval) == written


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5000"), (0.0, "0.0000"), (2.98e-7, "2.98e-07"), (3.0e9, "3e+09"), (-0.2, "-0.2000"), (0.001, "0.0010")],
)
def test_losses_of_any_size_say_something(value, text):
    assert loss(value) == text
