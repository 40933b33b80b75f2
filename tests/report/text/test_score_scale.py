"""What is said of arms that are compared by another metric than the accuracy of our own models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dropsearch.core.records import ComparisonMetric, Monitor
from dropsearch.report import arms_table, closing, differences_table, results, write_figures
from dropsearch.report.text.numbers import Scale
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
    assert "; test f1 0.615 (95 % CI" in found[0]
    assert found[2].startswith("Plain is worse by 0.21 (95 % CI")


def test_more_of_it_is_better_only_where_more_is_better(make):
    comparison_metric = replace(MORE, metric="test_mae", label="test mae", higher_is_better=False)
    found = answer(judged(make, comparison_metric, Monitor("val_mae"), none=LOW, dropout=HIGH))
    assert "Plain is better on the test set by 0.21" in found[1]


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


def test_no_accuracy_is_said_to_be_above_a_hundred_per_cent_or_below_zero():
    assert Scale(ComparisonMetric()).interval(-0.25, 1.125) == "0.00 to 100.00 %"
    assert Scale(LESS).interval(-0.25, 1.125) == "-0.25 to 1.125"
