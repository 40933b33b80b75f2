"""What limits the answer stands beside it, in every report."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from dropsearch import SearchResult
from dropsearch.report.html.page import page
from dropsearch.report.markdown import markdown
from dropsearch.report.results import results
from dropsearch.report.terminal import closing
from dropsearch.report.text.escaping import escaped
from dropsearch.report.text.verdict import verdict
from dropsearch.report.text.warnings import warnings
from dropsearch.stats.comparisons import compared
from tests.report.text.test_verdict import HIGH, LOW, with_losses


def in_every_first_screen(summary, text):
    terminal = " ".join(closing(summary).partition("Arms:")[0].split())
    top = markdown(summary).partition("## Numbers")[0]
    html = page(summary).partition("</header>")[0]
    python = " ".join(repr(SearchResult(summary)).partition("Arms:")[0].split())
    return text in terminal and text in python and escaped(text) in top and text in html


def test_a_second_opening_of_the_test_set_stands_in_the_first_screen(make):
    arm = make.arm("dropout")
    again = replace(arm, test=replace(arm.test, openings=2))
    summary = make.summary({"none": make.arm("none"), "dropout": again})
    assert in_every_first_screen(summary, "The test set was opened more than once (dropout 2 times)")
    assert "more than once" not in closing(make.summary(("none", "dropout")))


def test_an_interrupted_run_is_provisional(make):
    assert in_every_first_screen(make.summary(complete=False), "Provisional: the run was interrupted")


@pytest.mark.parametrize(
    ("reason", "again"), [("OSError: gone", True), ("diverged: val_loss=nan after epoch 2", False)]
)
def test_a_configuration_that_cannot_win_stands_in_the_first_screen(make, reason, again):
    arm = make.arm("dropout")
    first, *rest = arm.confirmed[0].results
    broken = replace(arm.confirmed[0], results=(replace(first, state="FAIL", reason=reason), *rest))
    summary = make.summary({"none": make.arm("none"), "dropout": replace(arm, confirmed=(broken, *arm.confirmed[1:]))})
    told = f"Trial {broken.number} of dropout (number 1 of its search) cannot win: 1 of 10 retrainings failed"
    assert in_every_first_screen(summary, told)
    assert any("the same command tries it again" in text for text in warnings(summary)) is again


def test_failures_on_one_side_stand_in_the_first_screen(make):
    arm = make.arm("none")
    failed = [replace(trial, state="FAIL", reason="OSError") for trial in arm.trials[:6]]
    summary = make.summary({"none": replace(arm, trials=(*failed, *arm.trials[6:])), "dropout": make.arm("dropout")})
    assert in_every_first_screen(summary, "plain 6 of 12, dropout 0 of 12")


@pytest.mark.parametrize(("seeds", "too_few"), [(5, True), (6, False)])
def test_too_few_seeds_stand_in_the_first_screen(make, seeds, too_few):
    few = make.tested(none=([0.9, 0.91] * 3)[:seeds], dropout=([0.9, 0.92] * 3)[:seeds])
    assert any("set confirm.seeds=6 or more" in text for text in warnings(few)) is too_few
    bought = replace(few, config={**few.config, "budget": "3m"})
    assert any("6 seeds need a larger budget" in text for text in warnings(bought)) is too_few
    assert not any("confirm.seeds" in text for text in warnings(bought))


@pytest.mark.parametrize("missing", [("initial weights of backbone",), ("batch order", "test examples")])
def test_nothing_is_shown_that_leaves_out_luck(make, missing):
    whole = make.tested(none=LOW, dropout=HIGH)
    assert "Plain is worse by" in verdict(whole)
    assert not any("luck" in text for text in warnings(whole))
    bare = replace(whole, comparisons=tuple(replace(each, missing=missing) for each in whole.comparisons))
    said = f"No difference can be shown in this run: intervals leave out the luck of {' and '.join(missing)}"
    assert in_every_first_screen(bare, said)
    assert "whether it differs from the recommended one cannot be said: plain" in verdict(bare).lower()
    assert not any(word in verdict(bare) for word in ("worse by", "better on", "excluded", "not distinguishable"))
    (found,) = results(bare)["comparisons"]
    assert (found["shown"], found["missing"]) == (False, list(missing))


def test_the_first_screen_has_at_most_24_lines_beside_the_tables(make):
    summary = make.with_evidence(config={"output_dir": "outputs/mlp-digits"})
    lines = closing(summary).splitlines()
    assert max(len(line) for line in lines if not line.startswith("  ")) <= 80
    tables = sum(1 for line in lines if (line[:1].isalpha() and "  " in line) or line.startswith("---"))
    assert len(lines) - tables <= 24


@pytest.mark.parametrize(("reason", "again"), [("OSError: no space", True), ("diverged: val_loss=nan", False)])
def test_failures_on_one_side_name_the_retry(make, reason: str, again: bool) -> None:
    given = {"none": make.failed("none", reason), "dropout": make.arm("dropout")}
    (said,) = [text for text in warnings(make.summary(given)) if "unequal chances" in text]
    assert "plain 12 of 12, dropout 0 of 12" in said
    assert ("study.retry_failed=true" in said) is again
    assert reason in said


def test_examples_that_parts_share_stand_in_the_first_screen(make) -> None:
    assert in_every_first_screen(make.summary(overlaps=("5 of 9 test examples are shared",)), "5 of 9 test examples")


def test_arms_that_differ_in_more_than_dropout_are_named(make) -> None:
    summary = make.summary(own_arguments={"dropout": "width=32", "both": "width=32"})
    (said,) = [text for text in warnings(summary) if "arm_args" in text]
    assert said.startswith("By arm_args the module of dropout and dropout + BatchNorm has width=32, unlike")
    assert not any("arm_args" in text for text in warnings(make.summary()))


def test_a_metric_with_one_value_is_named(make):
    arms = {}
    for name in ("none", "dropout"):
        arm = with_losses(make, name, [0.7] * 8)
        arm = replace(arm, confirmed=(arm.winner,), test=make.tested(**{name: [0.9] * 8}).arms[name].test)
        trials = [replace(trial, curve=tuple(replace(p, val_loss=0.7) for p in trial.curve)) for trial in arm.trials]
        arms[name] = replace(arm, trials=tuple(trials))
    summary = replace(make.summary(arms), redraws_split=True)
    told = " ".join(warnings(summary))
    assert "The validation loss is 0.7000 in every trial, so it chose nothing" in told
    assert "The test accuracy is the same for every model" in told
    assert "in every trial" not in " ".join(warnings(make.summary()))


@pytest.mark.parametrize(
    ("rates", "told"),
    [
        ({"a": 0.9, "b": 0.1, "c": 0.895}, "The rates of a and c are at the upper end of the range, 0.9"),
        ({"a": 0.2, "b": 0.9, "c": 0.3}, "The rate of b is at the upper end of the range, 0.9"),
        ({"a": 0.2, "b": 0.8, "c": 0.3}, ""),
    ],
)
def test_rates_at_the_upper_end_are_named(make, rates, told):
    arms = {"none": with_losses(make, "none", [0.5] * 3), "dropout": with_losses(make, "dropout", [0.2] * 3, rates)}
    found = [line for line in warnings(make.summary(arms, config={"space": {"high": 0.9}})) if "upper end" in line]
    assert [line.startswith(told) for line in found] == [True] * bool(told)


def test_a_search_of_first_points_says_so(make):
    arms = {name: make.arm(name, trials=1, top=1) for name in ("none", "dropout")}
    assert "With 1 trial an arm only the typical rates were tried." in warnings(make.summary(arms))


def broken(make, name, count, reason="diverged: val_loss=nan after epoch 2"):
    """An arm of whose configurations this many have a failed retraining."""
    arm = make.arm(name)
    failed = [
        replace(each, results=(replace(each.results[0], state="FAIL", reason=reason), *each.results[1:]))
        for each in arm.confirmed[:count]
    ]
    return replace(arm, confirmed=(*failed, *arm.confirmed[count:]))


def test_many_configurations_that_cannot_win_stand_in_one_sentence(make):
    summary = make.summary({"none": broken(make, "none", 1), "dropout": broken(make, "dropout", 3)})
    told = (
        "Configurations with a failed retraining cannot win: plain 1 of 3, dropout 3 of 3 (diverged: val_loss=nan "
        "after epoch 2)."
    )
    assert in_every_first_screen(summary, told)
    assert not any(text.startswith("Trial ") for text in warnings(summary))


def test_openings_of_all_arms_are_told_once(make):
    arms = {name: make.arm(name) for name in ("none", "dropout")}
    again = {name: replace(arm, test=replace(arm.test, openings=2)) for name, arm in arms.items()}
    assert "opened more than once (2 times for each arm)" in " ".join(warnings(make.summary(again)))


def test_contrasts_of_an_arm_with_unscored_seeds_are_not_shown(make):
    tested = make.tested(none=LOW, dropout=[math.nan, *HIGH[1:]], batchnorm=HIGH)
    again = replace(tested, comparisons=compared(tested.arms, tested.comparison_metric))
    shown = {frozenset((each["a"], each["b"])): each["shown"] for each in results(again)["comparisons"]}
    assert shown == {
        frozenset(("dropout", "none")): False,
        frozenset(("batchnorm", "dropout")): False,
        frozenset(("batchnorm", "none")): True,
    }
    assert in_every_first_screen(
        again,
        "No difference can be shown between dropout and plain or BatchNorm: intervals leave out the luck of seeds "
        "without a score.",
    )
    assert in_every_first_screen(again, "Seeds whose winner has no finite test score are left out: dropout 1 of 8.")


def test_an_arm_tested_in_a_later_run_is_named(make):
    arms = {name: make.arm(name) for name in ("none", "dropout", "both")}
    later = replace(arms["both"], test=replace(arms["both"].test, after=("dropout", "none")))
    told = "The test set was opened for dropout + BatchNorm after a run had shown the results of plain and dropout: "
    assert in_every_first_screen(make.summary(arms | {"both": later}), told)
    assert not any("opened" in text for text in warnings(make.summary({"both": later})))


DEAD = "rates 0 and 0.9 give the same loss: its output does not reach the loss, or its input is zero"


@pytest.mark.parametrize(
    ("rates", "is_plain", "named"),
    [
        ({"a": 0.4, "b": 0.0}, False, ""),
        ({"a": 0.4, "b": 0.3}, False, "The rate of b may be any: rates 0 and 0.9 give the same loss"),
        ({"a": 0.0, "b": 0.3}, True, "The rate of b may be any: "),
        ({"a": 0.0, "b": 0.0}, False, ""),
    ],
)
def test_rates_at_sites_without_effect_are_named(make, rates, is_plain, named):
    """A model that drops only there is one without dropout, whatever its loss."""
    arms = {"none": with_losses(make, "none", [0.5] * 3), "dropout": with_losses(make, "dropout", [0.2] * 3, rates)}
    summary = make.summary(arms, without_effect={"b": DEAD})
    told = "The rates of dropout are above 0 only where they have no effect: its winner is a model without dropout"
    assert in_every_first_screen(summary, told) is is_plain
    assert in_every_first_screen(summary, named)
    assert any(text.startswith("The rate of b") for text in warnings(summary)) is bool(named)
    assert "may be any" not in " ".join(warnings(make.summary(arms)))
