from __future__ import annotations

import math
from dataclasses import replace

import pytest

from dropsearch.core.records import Comparison, Interval
from dropsearch.report import closing
from dropsearch.report.html.page import page
from dropsearch.report.text.markdown import markdown
from dropsearch.report.text.verdict import rates_by_site, verdict

LOW, HIGH = [0.90, 0.91, 0.92, 0.90] * 2, [0.95, 0.97, 0.96, 0.95] * 2


def contrast(a, b, difference, low, high, p_holm, pairs=10):
    interval = Interval(difference, low, high)
    return Comparison(a, b, "test_acc", (difference,) * pairs, interval, p_holm / 5, p_holm)


def with_contrasts(make, *contrasts, **accuracies):
    return replace(make.tested(**accuracies), comparisons=contrasts)


@pytest.mark.parametrize(
    ("low", "p_holm", "shown"),
    [
        (0.001, 0.0499, True),
        (0.001, 0.05, False),
        (0.0, 0.0499, False),
        (-0.001, 0.0499, False),
        (0.001, 0.9, False),
        (math.nan, 0.0499, False),
    ],
)
def test_a_difference_is_shown_only_with_a_small_p_and_an_interval_without_zero(make, low, p_holm, shown):
    comparison = contrast("dropout", "none", 0.05, low, 0.09, p_holm)
    text = verdict(with_contrasts(make, comparison, none=LOW, dropout=HIGH))
    assert text.startswith("dropout is best on test accuracy (95.75 %)") is shown
    assert text.startswith("No difference could be shown between dropout") is not shown


def test_the_best_arm_beats_every_other_with_how_much(make):
    comparison = contrast("dropout", "none", 0.05, 0.04, 0.06, 0.002)
    text = verdict(with_contrasts(make, comparison, none=LOW, dropout=HIGH))
    assert "it beats none by 5.00 points (95 % interval 4.00 to 6.00)." in text
    assert text.endswith("This rests on 10 paired seeds and one test set.")


def test_a_contrast_that_names_the_best_arm_second_counts_as_well(make):
    comparison = contrast("dropout", "none", -0.05, -0.06, -0.04, 0.002)
    text = verdict(with_contrasts(make, comparison, none=HIGH, dropout=LOW))
    assert text.startswith("none (neither) is best")
    assert "it beats dropout by 5.00 points (95 % interval 4.00 to 6.00)." in text


def test_an_arm_that_beats_only_some_is_not_called_best(make):
    comparisons = (
        contrast("both", "none", 0.05, 0.04, 0.06, 0.002),
        contrast("both", "dropout", 0.01, -0.01, 0.02, 0.4),
        contrast("dropout", "none", 0.04, 0.03, 0.05, 0.002),
    )
    text = verdict(with_contrasts(make, *comparisons, none=LOW, dropout=LOW, both=HIGH))
    assert "is best" not in text
    assert "beats none by 5.00 points" in text
    assert "but no difference could be shown between it and dropout." in text
    assert "among the others, dropout beats none by 4.00 points" in text


def test_arms_that_no_contrast_compares_are_named(make):
    text = verdict(make.tested(dropout=HIGH, batchnorm=LOW))
    assert "no planned contrast compares it with batchnorm" in text
    assert "is best" not in text


def test_without_a_shown_difference_the_verdict_says_how_large_one_may_be(make):
    comparison = contrast("dropout", "none", 0.01, -0.02, 0.031, 0.3)
    text = verdict(with_contrasts(make, comparison, none=LOW, dropout=HIGH))
    assert text.endswith("With 10 paired seeds differences of up to 3.10 points remain possible.")


@pytest.mark.parametrize(("seeds", "too_few"), [(5, True), (6, False)])
def test_too_few_seeds_for_any_difference_are_said_to_be(make, seeds, too_few):
    text = verdict(make.tested(none=[0.9, 0.91] * 3, dropout=[0.9, 0.92] * 3))
    assert "whatever its size" not in text
    few = make.tested(none=([0.9, 0.91] * 3)[:seeds], dropout=([0.9, 0.92] * 3)[:seeds])
    assert ("it takes confirm.seeds=6 or more" in verdict(few)) is too_few


@pytest.mark.parametrize(
    ("difference", "p_holm", "said"),
    [
        (0.02, 0.01, "A rate for each site beats one rate for all by 2.00 points"),
        (-0.02, 0.01, "One rate for all beats a rate for each site by 2.00 points"),
        (0.02, 0.5, "Whether a rate for each site does better than one rate for all could not be shown"),
    ],
)
def test_rates_by_site_are_held_against_one_shared_rate_in_every_report(make, difference, p_holm, said):
    comparison = contrast("dropout", "dropout_shared", difference, difference - 0.01, difference + 0.01, p_holm)
    summary = with_contrasts(make, comparison, dropout=LOW, dropout_shared=HIGH)
    told = rates_by_site(summary)
    assert told.startswith(said)
    assert told in " ".join(closing(summary).split())
    assert said in markdown(summary)
    assert said in page(summary)


def test_without_the_arm_of_one_rate_nothing_is_said_of_it(make):
    assert rates_by_site(make.tested(none=LOW, dropout=HIGH)) == ""


def test_one_tested_arm_is_compared_with_nothing(make):
    text = verdict(make.summary({"dropout": make.arm("dropout"), "none": make.failed("none")}))
    assert text.startswith("dropout reached ")
    assert "no other arm was tested" in text
    assert "without a result: none (12 of 12 trials failed)" in text


def test_one_seed_has_no_interval(make):
    assert "interval" not in verdict(make.tested(dropout=[0.9]))


def test_a_closed_test_set_makes_no_arm_best(make):
    text = verdict(make.summary({name: make.untested(name) for name in ("none", "both")}))
    assert text.startswith("No arm has a test result, so none can be called best.")
    assert "On validation loss both leads with" in text
    assert "on fresh seeds" in text


def test_a_search_without_confirmation_is_called_lucky(make):
    text = verdict(make.summary({name: make.searched(name) for name in ("none", "both")}))
    assert "luckiest trial" in text


def test_a_test_set_on_which_every_seed_diverged_is_no_result(make):
    assert verdict(make.tested(none=[math.nan] * 3)).startswith("No arm has a test result")


def test_an_arm_that_diverged_on_every_seed_is_named(make):
    text = verdict(make.tested(none=LOW, both=HIGH, dropout=[math.nan] * 8))
    assert text.startswith("both (dropout and BatchNorm) ")
    assert text.endswith("without a result: dropout.")


def test_a_run_all_of_whose_trials_failed_says_why(make):
    text = verdict(make.summary({name: make.failed(name) for name in ("none", "dropout")}))
    assert text == (
        "No trial was completed, so nothing can be said about dropout or BatchNorm. "
        "Of 24 trials 24 failed, most often with: CUDA out of memory."
    )


def test_a_reason_of_many_lines_stays_on_one(make):
    text = verdict(make.summary({"none": make.failed("none", reason="first\n  second." + "x" * 500)}))
    assert "first second" in text
    assert len(text) < 400


def test_a_run_without_any_arm_says_nothing(make):
    assert verdict(make.summary({})).startswith("No trial was completed")


def test_an_interrupted_run_is_provisional(make):
    text = verdict(make.summary(complete=False))
    assert text.startswith("Provisional, since the run was interrupted: ")
