from __future__ import annotations

from dataclasses import replace

import pytest

from dropsearch.core.records import ARMS, Comparison, ComparisonMetric, Interval, best_arm
from dropsearch.report.html.page import page
from dropsearch.report.markdown import markdown
from dropsearch.report.results import results
from dropsearch.report.terminal import closing
from dropsearch.report.text.caveats import caveats
from dropsearch.report.text.phrases import short_names
from dropsearch.report.text.verdict import answer, rates_by_site, verdict
from dropsearch.report.text.warnings import warnings
from dropsearch.stats.comparisons import compared

LOW, HIGH = [0.90, 0.91, 0.92, 0.90] * 2, [0.95, 0.97, 0.96, 0.95] * 2


def contrast(a, b, difference, low, high, p_holm, pairs=10):
    interval = Interval(difference, low, high)
    return Comparison(a, b, "test_acc", (difference,) * pairs, interval, p_holm / 6, p_holm, over_seeds=interval)


def with_contrasts(make, *contrasts, **accuracies):
    return replace(make.tested(**accuracies), comparisons=contrasts)


def with_losses(make, name, losses, rates=None):
    """An arm whose winner has these validation losses on fresh seeds, and these rates."""
    arm = make.arm(name, seeds=len(losses))
    found = []
    for result, loss in zip(arm.winner.results, losses, strict=True):
        curve = tuple(replace(point, val_loss=loss) for point in result.curve[:1])
        spec = result.spec if rates is None else replace(result.spec, rates=rates)
        found.append(replace(result, curve=curve, spec=spec))
    return replace(arm, winner=replace(arm.winner, results=tuple(found)))


def batchnorm_best(make, *contrasts):
    """A summary in which plain and dropout have one loss, and BatchNorm a lower one."""
    summary = with_contrasts(make, *contrasts, none=LOW, dropout=LOW, batchnorm=HIGH)
    losses = {"none": 0.5, "dropout": 0.5, "batchnorm": 0.1}
    arms = {
        name: replace(with_losses(make, name, [loss] * 8), test=summary.arms[name].test)
        for name, loss in losses.items()
    }
    return replace(summary, arms=arms)


# What to use


def test_the_first_sentence_says_what_to_use_with_its_rates(make):
    rates = {"net.input.dropout": 0.112, "net.hidden1.dropout": 0.0, "net.hidden2.dropout": 0.06}
    arms = {"none": with_losses(make, "none", [0.5, 0.6]), "both": with_losses(make, "both", [0.2, 0.21], rates)}
    first = answer(make.summary(arms))[0]
    assert first.startswith("Use dropout + BatchNorm with rates 0.11 / 0 / 0.06 (input, hidden1, hidden2): ")
    assert "least validation loss 0.2050; test accuracy " in first


@pytest.mark.parametrize(
    ("redraws", "seeds", "end", "noted"),
    [
        (True, 2, ", 2 fresh seeds and splits.", "Each seed has its own split"),
        (True, 1, ", 1 fresh seed and split.", "Each seed has its own split"),
        (False, 2, ", 2 fresh seeds, one split.", "All models share one split"),
    ],
)
def test_the_answer_says_whether_seeds_have_their_own_split(make, redraws, seeds, end, noted):
    arms = {name: with_losses(make, name, [0.5, 0.6][:seeds]) for name in ("none", "dropout")}
    pair = contrast("dropout", "none", 0.01, -0.01, 0.03, 0.5)
    summary = replace(with_contrasts(make, pair), arms=arms, redraws_split=redraws)
    assert answer(summary)[0].endswith(end)
    assert sum(noted in line for line in caveats(summary)) == 1
    assert results(summary)["split"] == ("drawn for each seed" if redraws else "the same for all seeds")


@pytest.mark.parametrize(
    ("name", "others", "use"),
    [
        ("none", ("batchnorm",), "Use the plain model, without dropout and BatchNorm: "),
        ("none", ("dropout",), "Use the plain model, without dropout: "),
        ("batchnorm", ("none",), "Use BatchNorm without dropout: "),
        ("dropout_shared", ("none",), "Use dropout with one rate for all sites, 0.30: "),
    ],
)
def test_each_arm_has_a_name_for_people(make, name, others, use):
    arms = {other: with_losses(make, other, [0.5, 0.6]) for other in others}
    arms[name] = with_losses(make, name, [0.2, 0.2], {"a": 0.3, "b": 0.3} if name == "dropout_shared" else {})
    assert answer(make.summary(arms))[0].startswith(use)


@pytest.mark.parametrize(
    ("name", "partner"), [("dropout", "none"), ("none", "dropout"), ("batchnorm", "both"), ("typical", "none")]
)
def test_one_arm_says_what_to_compare_it_with(make, name, partner):
    use, alone = answer(make.summary({name: make.arm(name)}))
    assert use.startswith("Use ")
    assert alone == (
        f"No other arm was run, so nothing is compared: add the arm {partner} to arms to see what dropout changes."
    )


def test_an_arm_that_chose_no_dropout_alone_is_the_plain_model(make):
    arm = with_losses(make, "dropout", [0.2, 0.2], {"drop": 0.0})
    assert answer(make.summary({"dropout": arm}))[0].startswith("Use the plain model (every rate chosen is 0): least ")
    worse = with_losses(make, "none", [0.9, 0.9])
    wider = make.summary({"none": worse, "dropout": arm}, own_arguments={"dropout": "width=32"})
    assert "the plain model with width=32 (every rate chosen is 0)" in answer(wider)[0]


def test_a_retraining_by_itself_recommends_nothing(make):
    arm = replace(with_losses(make, "dropout", [0.2], {"drop": 0.3}), trials=())
    (said,) = answer(make.summary({"dropout": arm}))
    assert said == "Dropout with rate 0.30 (drop): trained again with seed 5000, best validation loss 0.2000."


def test_many_rates_are_left_to_the_table(make):
    rates = {f"blocks.{index}.dropout": index / 10 for index in range(9)}
    first = answer(make.summary({"dropout": with_losses(make, "dropout", [0.2, 0.2], rates)}))[0]
    assert "with rates from 0.00 to 0.80 at 9 sites (table below)" in first


@pytest.mark.parametrize(
    ("sites", "names"),
    [
        (["net.input.dropout", "net.hidden1.dropout"], ["input", "hidden1"]),
        (["drop"], ["drop"]),
        (["head.dropout"], ["head"]),
        (["encoder.drop#2", "encoder.drop"], ["drop#2", "drop"]),
    ],
)
def test_sites_are_named_without_what_they_share(sites, names):
    assert short_names(sites) == names


def test_the_simplest_arm_within_one_standard_error_is_the_one_to_use(make):
    best = [0.20, 0.30, 0.25, 0.22]
    near = [0.21, 0.29, 0.26, 0.22]  # on average 0.0025 more, with a standard error of 0.0048
    far = [0.25, 0.35, 0.30, 0.26]
    arms = {"both": with_losses(make, "both", best), "batchnorm": with_losses(make, "batchnorm", near)}
    assert best_arm(arms) == "batchnorm"
    assert "tied with that of dropout + BatchNorm, which is less simple" in answer(make.summary(arms))[0]
    assert best_arm(arms | {"batchnorm": with_losses(make, "batchnorm", far)}) == "both"


def test_every_report_recommends_the_same_arm(make):
    summary = make.summary()
    name = best_arm(summary.arms)
    found = results(summary)
    assert found["recommended"] == name
    assert found["answer"] == list(answer(summary))
    assert found["arms"][name]["winner"]["mean_val_loss"] == min(
        arm["winner"]["mean_val_loss"] for arm in found["arms"].values()
    )


# What is tied, and what is not better


@pytest.mark.parametrize(
    ("low", "p_holm", "shown"),
    [(-0.06, 0.0499, True), (-0.06, 0.05, False), (-0.12, 0.0499, True), (-0.06, 0.9, False)],
)
def test_an_arm_is_worse_only_where_that_is_shown(make, low, p_holm, shown):
    comparison = contrast("none", "dropout", -0.05, low, -0.02, p_holm)
    found = answer(with_contrasts(make, comparison, none=LOW, dropout=HIGH))
    assert found[2].startswith("Plain is worse by 5.00 points (95 % CI 2.00 to ") is shown
    assert found[1].startswith("Not distinguishable from it: plain (-5.00 points, ") is not shown


def test_the_interval_of_a_tie_is_turned_to_the_arm_that_is_named(make):
    comparison = contrast("dropout", "none", 0.01, -0.02, 0.031, 0.3)
    found = answer(with_contrasts(make, comparison, none=LOW, dropout=HIGH))
    assert found[1] == "Not distinguishable from it: plain (-1.00 points, 95 % CI -3.10 to +2.00)."
    assert found[2] == "No arm is shown to be worse."


def test_an_arm_that_is_better_on_the_test_set_is_named_and_not_chosen(make):
    comparison = contrast("dropout", "none", -0.05, -0.06, -0.04, 0.002)
    found = answer(with_contrasts(make, comparison, none=HIGH, dropout=LOW))
    assert found[0].startswith("Use dropout with rates")
    assert found[1] == (
        "Better on the test set, which has no say in the choice: plain by 5.00 points (95 % CI 4.00 to 6.00)."
    )


def test_what_dropout_does_not_improve_has_a_bound(make):
    comparisons = (
        contrast("dropout", "none", 0.001, -0.004, 0.007, 0.8),
        contrast("batchnorm", "none", 0.05, 0.04, 0.06, 0.002),
        contrast("batchnorm", "dropout", 0.05, 0.04, 0.06, 0.002),
    )
    third = answer(batchnorm_best(make, *comparisons))[2]
    assert "dropout: no improvement over plain shown, more than 0.70 points is excluded." in third


@pytest.mark.parametrize("on", ["dropout", "dropout_shared"])
def test_an_arm_that_chose_no_dropout_is_not_called_beaten(make, on):
    plain = with_losses(make, "none", [0.2] * 4)
    same = replace(plain, arm=ARMS[on], winner=replace(plain.winner, owner="none"))
    found = answer(make.summary({on: same, "none": plain}))
    assert found[0].startswith("Use the plain model")
    assert "no dropout was chosen, it is the same model" in found[1]
    assert "worse" not in verdict(make.summary({on: same, "none": plain})).replace("shown to be worse", "")


def test_arms_of_one_model_stand_in_one_clause(make):
    plain = with_losses(make, "none", [0.2] * 4)
    same = {name: replace(plain, arm=ARMS[name], winner=replace(plain.winner, owner="none")) for name in ARMS}
    arms = {"none": plain, "dropout_shared": same["dropout_shared"], "dropout": same["dropout"]}
    assert answer(make.summary(arms))[1] == (
        "Dropout and dropout with one rate: no dropout was chosen, they are the same model."
    )


@pytest.mark.parametrize(("seeds", "has_interval"), [(2, False), (3, True)])
def test_two_seeds_give_no_interval(make, seeds, has_interval):
    summary = make.tested(none=LOW[:seeds], dropout=HIGH[:seeds])
    assert ("95 % CI" in answer(summary)[0]) is has_interval
    row = next(line for line in closing(summary).splitlines() if line.startswith("dropout "))
    assert (" to " in row) is has_interval


def test_a_contrast_of_the_same_model_counts(make):
    tested = make.tested(dropout=[0.98, 0.97] * 5, typical=[0.71, 0.72] * 5)
    plain = with_losses(make, "none", [0.2] * 10)
    arms = {
        "none": replace(plain, test=tested.arms["dropout"].test),
        "dropout": replace(plain, arm=ARMS["dropout"], winner=replace(plain.winner, owner="none")),
        "typical": replace(with_losses(make, "typical", [0.9] * 10), test=tested.arms["typical"].test),
    }
    assert [{each.a, each.b} for each in tested.comparisons] == [{"dropout", "typical"}]
    found = answer(replace(tested, arms=arms))
    assert "was not compared" not in found[1]
    assert found[2].startswith("Dropout at typical rates is worse by")


def test_the_model_to_use_is_not_said_to_improve_nothing(make):
    """What is tied with it stands in the second sentence."""
    tied = contrast("dropout", "none", 0.02, -0.01, 0.05, 0.2)
    one = with_losses(make, "dropout", [0.1] * 8, {"a": 0.4})
    same = replace(one, arm=ARMS["typical"], winner=replace(one.winner, owner="dropout"))
    arms = {"none": with_losses(make, "none", [0.2] * 8), "dropout": one, "typical": same}
    found = answer(replace(with_contrasts(make, tied), arms=arms))
    assert found[0].startswith("Use dropout at typical rates")
    assert "not distinguishable from it: plain" in found[1]
    assert found[2] == "No arm is shown to be worse."


@pytest.mark.parametrize("better", [True, False])
def test_the_other_arm_of_a_contrast_may_be_one_of_its_model(make, better):
    """A contrast of one arm counts for all arms with its model."""
    sizes = (0.07, 0.06, 0.08) if better else (-0.07, -0.08, -0.06)
    found = contrast("dropout", "none", *sizes, 0.002)
    one = with_losses(make, "dropout", [0.2] * 8, {"a": 0.3, "b": 0.3})
    same = replace(one, arm=ARMS["dropout_shared"], winner=replace(one.winner, owner="dropout"))
    arms = {"none": with_losses(make, "none", [0.1] * 8), "dropout": one, "dropout_shared": same}
    _, tied, worse = answer(replace(with_contrasts(make, found), arms=arms))
    if better:
        assert "dropout by 7.00 points (95 % CI 6.00 to 8.00), dropout with one rate by 7.00 points" in tied
    else:
        assert worse.startswith("Dropout and dropout with one rate are worse by 7")


def test_without_a_test_set_one_number_stands_for_choice_and_score(make):
    metric = ComparisonMetric("val_loss", "val_loss", "val loss", percent=False, higher_is_better=False)
    arms = {"none": with_losses(make, "none", [0.1, 0.2] * 4), "dropout": with_losses(make, "dropout", [0.3, 0.4] * 4)}
    summary = make.summary(arms, comparison_metric=metric, comparisons=compared(arms, metric))
    first = answer(summary)[0]
    assert "least validation loss 0.150 (95 % CI over seeds 0.105 to 0.195), 8 fresh seeds" in first
    assert "val loss" not in first
    assert any(text.startswith("There is no test set") for text in warnings(summary))


def test_arms_that_found_equal_settings_apart_are_the_same_model(make):
    plain = with_losses(make, "none", [0.2] * 4, {})
    found_apart = with_losses(make, "dropout", [0.2] * 4, {"drop": 0.0})
    specs = [result.spec for result in plain.winner.results]
    results = tuple(
        replace(result, spec=replace(result.spec, seed=spec.seed, lr=spec.lr, weight_decay=spec.weight_decay))
        for result, spec in zip(found_apart.winner.results, specs, strict=True)
    )
    apart = replace(found_apart, winner=replace(found_apart.winner, number=7, results=results))
    assert answer(make.summary({"none": plain, "dropout": apart}))[1] == (
        "Dropout: no dropout was chosen, it is the same model."
    )
    others = tuple(replace(result, spec=replace(result.spec, lr=0.5)) for result in results)
    other = replace(apart, winner=replace(apart.winner, results=others))
    assert "same model" not in verdict(make.summary({"none": plain, "dropout": other}))


def test_an_arm_that_cannot_be_better_says_so(make):
    pairs = (
        contrast("dropout", "none", -0.02, -0.03, -0.01, 0.2),
        contrast("batchnorm", "none", 0.05, 0.04, 0.06, 0.002),
        contrast("batchnorm", "dropout", 0.07, 0.06, 0.08, 0.002),
    )
    losses = {"none": 0.5, "dropout": 0.5, "batchnorm": 0.1}
    summary = with_contrasts(make, *pairs, none=HIGH, dropout=LOW, batchnorm=HIGH)
    arms = {
        name: replace(with_losses(make, name, [loss] * 8), test=summary.arms[name].test)
        for name, loss in losses.items()
    }
    third = answer(replace(summary, arms=arms))[2]
    assert "dropout: no improvement over plain shown, any improvement is excluded." in third


def test_an_interval_without_zero_that_is_not_shown_says_why(make):
    comparison = contrast("dropout", "none", -0.0056, -0.0096, -0.001, 0.074)
    arms = {"none": with_losses(make, "none", [0.1] * 8), "dropout": with_losses(make, "dropout", [0.2] * 8)}
    tied = answer(replace(with_contrasts(make, comparison), arms=arms))[1]
    assert tied == (
        "Not distinguishable from it: dropout "
        "(-0.56 points, 95 % CI -0.96 to -0.10, but p = 0.074 adjusted for 1 contrast)."
    )


def test_arms_that_chose_the_same_rates_are_the_same_model(make):
    one = with_losses(make, "dropout_shared", [0.2] * 4, {"a": 0.3, "b": 0.3})
    same = replace(one, arm=ARMS["dropout"], winner=replace(one.winner, owner="dropout_shared"))
    found = answer(make.summary({"dropout": same, "dropout_shared": one}))
    assert found[0].startswith("Use dropout with one rate for all sites, 0.30")
    assert found[1] == "Dropout is the same model."
    assert rates_by_site(make.summary({"dropout": same, "dropout_shared": one})) == ""


@pytest.mark.parametrize(
    ("difference", "p_holm", "said"),
    [
        (0.02, 0.01, "A rate for each site is better than one rate for all by 2.00 points"),
        (-0.02, 0.01, "One rate for all is better than a rate for each site by 2.00 points"),
        (0.02, 0.5, "A rate for each site is not shown to be better than one rate for all"),
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


def test_one_arm_is_compared_with_nothing(make):
    found = answer(make.summary({"dropout": make.arm("dropout"), "none": make.failed("none")}))
    assert found[1] == (
        "No other arm has a result, so nothing is compared; without a result: plain (12 of 12 trials failed)."
    )


# Where nothing was confirmed


def test_a_search_without_confirmation_recommends_nothing(make):
    found = answer(make.summary({name: make.searched(name) for name in ("none", "both")}))
    assert found[0].startswith("No arm can be recommended yet")
    assert "dropout + BatchNorm leads with validation loss" in found[1]


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("diverged: val_loss=nan", "Lower learning rates (space.lr.high) or"),
        ("KeyError: 'x'", "Remove the cause, then"),
    ],
)
def test_a_whole_run_without_a_winner_says_what_failed(make, reason, advice):
    arm = make.arm("none")
    failed = [replace(result, state="FAIL", reason=reason) for result in arm.confirmed[0].results]
    broken = replace(arm, confirmed=(replace(arm.confirmed[0], results=tuple(failed)),), winner=None, test=None)
    first = "No arm can be recommended: each confirmed configuration has a retraining that failed, most often with: "
    assert answer(make.summary({"none": broken}))[0].startswith(f"{first}{reason}. {advice}")
    assert answer(make.summary({"none": broken}, complete=False))[0].startswith("No arm can be recommended yet")


def test_a_run_all_of_whose_trials_failed_says_why(make):
    assert verdict(make.summary({name: make.failed(name) for name in ("none", "dropout")})) == (
        "No trial was completed, so nothing can be said about dropout or BatchNorm. "
        "Of 24 trials 24 failed, most often with: CUDA out of memory."
    )


def test_one_trial_is_no_trials(make):
    assert "Of 1 trial 1 failed" in verdict(make.summary({"none": make.failed("none", trials=1)}))


def test_a_reason_of_many_lines_stays_on_one(make):
    text = verdict(make.summary({"none": make.failed("none", reason="first\n  second." + "x" * 500)}))
    assert "first second" in text
    assert len(text) < 400


def test_a_run_without_any_arm_says_nothing(make):
    assert verdict(make.summary({})).startswith("No trial was completed")


def test_all_that_is_better_or_tied_stands_in_one_clause(make):
    accuracies = {"none": HIGH, "dropout": LOW, "batchnorm": HIGH}
    pairs = [
        contrast("dropout", "none", -0.05, -0.06, -0.04, 0.002),
        contrast("batchnorm", "dropout", 0.01, -0.02, 0.03, 1),
    ]
    summary = with_contrasts(make, *pairs, **accuracies)
    losses = {"none": [0.5] * 8, "dropout": [0.2] * 8, "batchnorm": [0.4] * 8}
    arms = {name: replace(with_losses(make, name, losses[name]), test=summary.arms[name].test) for name in losses}
    assert answer(replace(summary, arms=arms))[1] == (
        "Better on the test set, which has no say in the choice: plain by 5.00 points (95 % CI 4.00 to 6.00); not "
        "distinguishable from it: BatchNorm (+1.00 points, 95 % CI -2.00 to +3.00)."
    )


def test_arms_with_one_model_share_a_clause(make):
    pairs = (
        contrast("dropout", "none", 0.0, 0.0, 0.0, 1.0),
        contrast("batchnorm", "none", 0.02, -0.01, 0.03, 0.2),
        contrast("batchnorm", "dropout", 0.02, -0.01, 0.03, 0.2),
    )
    summary = batchnorm_best(make, *pairs)
    tied = answer(summary)[1]
    assert tied == "Not distinguishable from it: plain and dropout (-2.00 points, 95 % CI -3.00 to +1.00)."
    shown = tuple(replace(each, difference=Interval(0.02, 0.01, 0.03), p=0.001, p_holm=0.001) for each in pairs[1:])
    third = answer(replace(summary, comparisons=(pairs[0], *shown)))[2]
    assert third.startswith("Plain and dropout are worse by 2.00 points (95 % CI 1.00 to 3.00)")


def test_few_seeds_tell_nothing_apart_and_nothing_alike(make):
    """Without an interval no difference is excluded, however large the one that was seen."""
    summary = make.tested(none=[0.9, 0.91, 0.92], dropout=[0.8, 0.82, 0.81], batchnorm=[0.9, 0.91, 0.91])
    assert "cannot be said: " in answer(summary)[1]
    assert "not distinguishable" not in verdict(summary)
    assert "no improvement" not in verdict(summary)


@pytest.mark.parametrize("used", ["dropout", "none"])
def test_a_model_that_drops_only_where_it_has_no_effect_is_neither_better_nor_worse_than_plain(make, used):
    """It is the plain model with another learning rate."""
    sign = 1 if used == "dropout" else -1
    found = contrast("dropout", "none", sign * 0.05, *sorted((sign * 0.04, sign * 0.06)), 0.002)
    losses = {"dropout": 0.2, "none": 0.5} if used == "dropout" else {"dropout": 0.5, "none": 0.2}
    arms = {
        "none": with_losses(make, "none", [losses["none"]] * 8, {}),
        "dropout": with_losses(make, "dropout", [losses["dropout"]] * 8, {"a": 0.0, "b": 0.3}),
    }
    summary = replace(with_contrasts(make, found), arms=arms, without_effect={"b": "nothing"})
    use, tied, worse = answer(summary)
    assert use.startswith("Use the plain model")
    assert ("of the arm dropout (of its rates only that of b is above 0, which has no effect)" in use) is (sign > 0)
    assert "differs from it in learning rate and weight decay, not in dropout (-5.00 points" in tied
    assert worse == "No arm is shown to be worse."
    alive = answer(replace(summary, without_effect={}))
    assert any("worse by 5.00" in text for text in alive)


def test_several_sites_without_effect_are_named_in_one_sentence(make):
    arm = with_losses(make, "dropout", [0.2] * 8, {"a": 0.2, "b": 0.3})
    summary = make.summary({"dropout": arm}, without_effect={"a": "nothing", "b": "nothing"})
    assert "(of its rates only those of a and b are above 0, which have no effect)" in answer(summary)[0]


def test_rates_without_effect_are_not_held_against_one_shared_rate(make):
    """Where neither arm drops, the difference is one of learning rates."""
    arms = {
        "dropout": with_losses(make, "dropout", [0.2] * 8, {"a": 0.0, "b": 0.3}),
        "dropout_shared": with_losses(make, "dropout_shared", [0.5] * 8, {"a": 0.0, "b": 0.0}),
    }
    found = contrast("dropout", "dropout_shared", 0.05, 0.04, 0.06, 0.002)
    summary = replace(with_contrasts(make, found), arms=arms)
    assert "is better than one rate for all" in rates_by_site(summary)
    assert rates_by_site(replace(summary, without_effect={"b": "nothing"})) == ""
