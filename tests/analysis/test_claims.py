from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from dropsearch.analysis.claims import claims
from dropsearch.core.records import (
    ARMS,
    ArmEvidence,
    ArmOutcome,
    Claim,
    ComparisonMetric,
    Confirmed,
    EpochMetrics,
    Evidence,
    Quantity,
    Series,
    Site,
    Summary,
    TestScores,
    TrialResult,
    TrialSpec,
)
from dropsearch.stats.comparisons import compared, contrasts

SEEDS = tuple(range(100, 110))
KINDS = {"input.dropout": "input", "hidden1.dropout": "hidden"}
TYPICAL = {"input.dropout": 0.15, "hidden1.dropout": 0.4}
SPREAD = [0.001 * (i - 4.5) for i in range(10)]


def around(mean: float) -> tuple[float, ...]:
    """One number a seed, close to a mean; differences of two such are not all equal."""
    return tuple(mean + each * (1 + mean) for each in SPREAD)


def outcome(
    name: str, *, rates: Mapping[str, float] | None = None, acc: float = 0.9, val_loss: float = 0.3
) -> ArmOutcome:
    """An arm whose winner has these rates and scores."""
    given = (dict(TYPICAL) if ARMS[name].dropout != "off" else {}) if rates is None else dict(rates)
    point = EpochMetrics(0, 0.1, 0.2, val_loss, 0.9, 0.9)
    results = tuple(
        TrialResult(TrialSpec(name, i, seed, given, 1e-3, 0.0, phase="confirm"), "COMPLETE", (point,), 1.0)
        for i, seed in enumerate(SEEDS)
    )
    winner = Confirmed(0, results)
    return ArmOutcome(ARMS[name], (), (winner,), winner, scores(0.3, acc))


def scores(loss: float, acc: float) -> TestScores:
    """Test scores that are alike on all groups of examples."""
    by_example = [tuple((value,) * 30 for value in around(mean)) for mean in (loss, acc)]
    return TestScores("2026", around(loss), around(acc), *by_example)


def summary(*arms: ArmOutcome, comparison_metric: ComparisonMetric | None = None) -> Summary:
    comparison_metric = comparison_metric or ComparisonMetric()
    named = {arm.arm.name: arm for arm in arms}
    sites = tuple(Site(name, kind, 0.0, 10) for name, kind in KINDS.items())
    return Summary(
        "s",
        "mlp",
        "digits",
        0,
        {},
        1.0,
        "sequential",
        sites,
        named,
        compared(named, comparison_metric),
        comparison_metric=comparison_metric,
    )


def evidence(measures: Mapping[str, Mapping[str, Sequence[float]]], **series: Series) -> Evidence:
    """By arm, measures by name."""
    found = {
        arm: ArmEvidence(SEEDS, {name: tuple(values) for name, values in each.items()}, series)
        for arm, each in measures.items()
    }
    labels = {"gap_best": Quantity("gap at the best epoch", "nats")}
    return Evidence(found, contrasts=contrasts(found), quantities=labels)


def said(name: str, found: Evidence, of: Summary) -> Claim:
    (claim,) = [claim for claim in claims(found, of) if claim.name == name]
    return claim


NOTHING = evidence({})
EFFECTS = {"overfitting": ("gap_best", -1), "coadaptation": ("correlation", -1), "robustness": ("noise_area", 1)}


def test_there_is_one_claim_each_in_their_order() -> None:
    names = [claim.name for claim in claims(NOTHING, summary(outcome("none"), outcome("dropout")))]
    assert names == ["overfitting", "coadaptation", "robustness", "ensemble", "rates", "batchnorm"]


def test_a_run_without_arms_shows_nothing_and_says_why() -> None:
    for claim in claims(NOTHING, summary()):
        assert claim.answer == "not measured"
        assert "this run has no winner" in claim.reason


@pytest.mark.parametrize(("name", "measure", "side"), [(name, *rest) for name, rest in EFFECTS.items()])
@pytest.mark.parametrize(("shift", "expected"), [(0.1, "held"), (-0.1, "did not hold"), (0.0, "did not hold")])
def test_an_effect_is_decided_by_dropout_minus_none(
    name: str, measure: str, side: int, shift: float, expected: str
) -> None:
    found = evidence({"none": {measure: around(0.5)}, "dropout": {measure: around(0.5 + side * shift)}})
    claim = said(name, found, summary(outcome("none"), outcome("dropout")))
    assert claim.answer == expected
    assert claim.measure.endswith("dropout minus none")
    assert claim.number == found.contrasts[0].difference


def test_where_dropout_chose_only_zeros_the_arms_with_batchnorm_decide() -> None:
    measures = {
        name: {"gap_best": around(0.5 - 0.1 * (name == "both"))} for name in ("none", "dropout", "batchnorm", "both")
    }
    arms = [outcome("none"), outcome("dropout", rates=dict.fromkeys(KINDS, 0.0)), outcome("batchnorm"), outcome("both")]
    claim = said("overfitting", evidence(measures), summary(*arms))
    assert (claim.answer, claim.measure) == ("held", "gap at the best epoch, both minus batchnorm")


def four_arms(**means: Mapping[str, float]) -> tuple[Evidence, Summary]:
    """The arms with and without dropout and BatchNorm, each with numbers around these means by measure."""
    measures = {name: {measure: around(mean) for measure, mean in each.items()} for name, each in means.items()}
    return evidence(measures), summary(*map(outcome, measures))


def test_contrasts_that_are_shown_to_point_either_way_show_nothing() -> None:
    of = four_arms(
        none={"correlation": 0.3},
        dropout={"correlation": 0.2},
        batchnorm={"correlation": 0.2},
        both={"correlation": 0.25},
    )
    claim = said("coadaptation", *of)
    assert claim.answer == "undecided"
    assert claim.reason.startswith(
        "The contrasts disagree: correlation is 0.1 lower with dropout than with plain (95 %"
    )
    assert "correlation is 0.05 higher with dropout + BatchNorm than with BatchNorm (95 %" in claim.reason


def test_the_contrast_that_does_not_decide_is_reported_too() -> None:
    of = four_arms(
        none={"gap_best": 0.3}, dropout={"gap_best": 0.2}, batchnorm={"gap_best": 0.2}, both={"gap_best": 0.2}
    )
    claim = said("overfitting", *of)
    assert claim.answer == "held"
    assert "gap at the best epoch is no different with dropout + BatchNorm than with BatchNorm" in claim.reason


def test_noise_decides_robustness_and_other_corruptions_are_reported() -> None:
    of = four_arms(
        none={"noise_area": 0.5, "robustness_area": 0.5}, dropout={"noise_area": 0.5, "robustness_area": 0.7}
    )
    claim = said("robustness", *of)
    assert (claim.answer, claim.measure) == ("did not hold", "noise area, dropout minus none")
    assert "; robustness area is 0.2 higher with dropout than with plain (95 %" in claim.reason


@pytest.mark.parametrize(
    ("name", "measure", "check", "side"),
    [("overfitting", "gap_best", "val_loss_best", 1), ("coadaptation", "correlation", "knockout_area", -1)],
)
@pytest.mark.parametrize(("shift", "expected"), [(0.1, "undecided"), (0.0, "held"), (-0.1, "held")])
def test_what_its_check_is_shown_to_contradict_does_not_hold(
    name: str, measure: str, check: str, side: int, shift: float, expected: str
) -> None:
    claim = said(name, *four_arms(none={measure: 0.5, check: 0.5}, dropout={measure: 0.4, check: 0.5 + side * shift}))
    assert claim.answer == expected
    words = f"but the {check.replace('_', ' ')} is 0.1 {'higher' if side > 0 else 'lower'} with dropout"
    assert (words in claim.reason) is (expected == "undecided")


def test_rates_that_are_all_zero_test_no_dropout() -> None:
    zero = dict.fromkeys(KINDS, 0.0)
    names = ("none", "dropout", "batchnorm", "both")
    measures = {name: {"gap_best": around(0.9 if name in ("none", "batchnorm") else 0.1)} for name in names}
    for name in ("dropout", "both"):
        measures[name]["mc_minus_scaled"] = around(-0.1)
    of = summary(outcome("none"), outcome("batchnorm"), outcome("dropout", rates=zero), outcome("both", rates=zero))
    found = evidence(measures)
    for claim in ("overfitting", "ensemble"):
        assert said(claim, found, of).answer == "not measured"
        assert said(claim, found, of).reason == (
            "Every rate of the winner of dropout and dropout + BatchNorm is 0, so dropout was not tested."
        )
    assert said("batchnorm", found, of).reason == (
        "Every rate of the winner of dropout + BatchNorm is 0, so dropout was not tested."
    )


def test_rates_above_zero_without_effect_test_no_dropout() -> None:
    """The winner is a plain model with a learning rate of its own, whatever its numbers."""
    measures = {"none": {"gap_best": around(0.9)}, "dropout": {"gap_best": around(0.1), "mc_minus_scaled": around(-1)}}
    alive = summary(outcome("none"), outcome("dropout", rates={"input.dropout": 0.0, "hidden1.dropout": 0.4}))
    of = replace(alive, without_effect={"hidden1.dropout": "its rate changes nothing"})
    for claim in ("overfitting", "ensemble"):
        assert said(claim, evidence(measures), alive).answer == "held"
        assert said(claim, evidence(measures), of).reason == (
            "Every rate of the winner of dropout is 0, or has no effect, so dropout was not tested."
        )
    arms = {name: outcome(name, acc=0.9) for name in ("none", "typical")} | of.arms
    found = replace(of, arms=arms, comparisons=compared(arms, ComparisonMetric()))
    assert said("rates", NOTHING, found).reason.endswith("; every rate found in dropout is 0, or has no effect.")


def test_a_foreign_network_whose_dropout_was_switched_off_is_no_dropout() -> None:
    zero = dict.fromkeys(KINDS, 0.0)
    found = evidence({"none": {"gap_best": around(0.5)}, "dropout": {"gap_best": around(0.3)}})
    of = summary(outcome("none", rates=zero), outcome("dropout", rates=zero))
    assert "not tested" in said("overfitting", found, of).reason
    assert said("overfitting", found, summary(outcome("none", rates=zero), outcome("dropout"))).answer == "held"


def test_a_measure_that_is_missing_is_named_with_the_arms_that_it_takes() -> None:
    found = evidence({"batchnorm": {"gap_best": around(0.5)}, "none": {"gap_best": around(0.5)}})
    claim = said("overfitting", found, summary(outcome("none"), outcome("batchnorm")))
    assert claim.reason == (
        "It needs the gap at the best epoch of dropout and plain, or of dropout + BatchNorm and BatchNorm: "
        "this run has winners of plain, BatchNorm."
    )


@pytest.mark.parametrize("name", [*EFFECTS, "ensemble"])
def test_what_could_not_be_measured_on_the_arms_that_it_takes_is_not_said_to_need_them(name: str) -> None:
    """A regression has no accuracy under noise, and a module without activation modules no hidden units."""
    claim = said(name, NOTHING, summary(outcome("none"), outcome("dropout")))
    assert claim.answer == "not measured"
    assert claim.reason.endswith(", which could not be measured on these models: the caveats say why.")


def test_rates_found_that_are_all_zero_are_named_as_that() -> None:
    zero = dict.fromkeys(KINDS, 0.0)
    arms = [outcome("none", acc=0.9), outcome("dropout", rates=zero, acc=0.9), outcome("typical", acc=0.8)]
    claim = said("rates", NOTHING, summary(*arms))
    assert claim.answer == "did not hold"
    assert claim.reason.endswith("; every rate found in dropout is 0.")


@pytest.mark.parametrize(("mean", "expected"), [(-0.1, "held"), (0.1, "did not hold"), (0.0, "did not hold")])
def test_the_ensemble_must_beat_the_scaled_network(mean: float, expected: str) -> None:
    found = evidence({"dropout": {"mc_minus_scaled": around(mean), "mc_nll_gain": around(0.2)}})
    claim = said("ensemble", found, summary(outcome("dropout")))
    assert claim.answer == expected
    assert claim.number.mean == pytest.approx(mean)
    assert "averaging lowers the loss by 0.2 nats" in claim.reason


def test_a_gain_over_the_plain_network_only_is_no_ensemble() -> None:
    found = evidence({"dropout": {"mc_minus_scaled": around(0.05), "mc_nll_gain": around(0.5)}})
    assert said("ensemble", found, summary(outcome("dropout"))).answer == "did not hold"


def test_the_ensemble_of_retrainings_is_reported_too() -> None:
    members = Series((1.0, 10.0), tuple((0.5, 0.25) for _ in SEEDS))
    found = evidence({"dropout": {"mc_minus_scaled": around(-0.1), "mc_nll": around(0.4)}}, nll_by_members=members)
    claim = said("ensemble", found, summary(outcome("dropout")))
    assert claim.reason.endswith("10 retrainings together have a loss of 0.25, one over masks 0.4.")


def test_the_average_is_held_against_the_network_with_a_temperature_on_both_sides() -> None:
    found = evidence(
        {"dropout": {"mc_minus_scaled": around(0.1), "mc_scaled_nll": around(0.3), "scaled_nll": around(0.4)}}
    )
    claim = said("ensemble", found, summary(outcome("dropout")))
    assert claim.reason.endswith("; with its own temperature the average has a loss of 0.3, the network 0.4.")


def test_seeds_without_a_number_are_left_out_of_the_ensemble() -> None:
    values = (math.nan, *around(-0.1)[1:])
    claim = said("ensemble", evidence({"dropout": {"mc_minus_scaled": values}}), summary(outcome("dropout")))
    assert "9 seeds" in claim.reason


def test_without_the_typical_arm_the_rates_found_are_counted_and_nothing_is_shown() -> None:
    rates = {"input.dropout": 0.15, "hidden1.dropout": 0.05}
    claim = said("rates", NOTHING, summary(outcome("none"), outcome("dropout", rates=rates)))
    assert claim.answer == "not measured"
    assert claim.number.mean == 0.5
    assert claim.reason == (
        "Of the rates found in dropout 1 of 2 are typical, but not hidden1.dropout 0.05 (typical 0.3 to 0.5); "
        "whether typical rates do as well needs the arms dropout and typical."
    )


@pytest.mark.parametrize(
    ("typical", "expected"), [(0.9, "held"), (0.95, "held"), (0.85, "did not hold"), (0.8985, "held")]
)
def test_typical_rates_hold_where_their_arm_is_no_worse(typical: float, expected: str) -> None:
    arms = [outcome("none", acc=0.8), outcome("dropout", acc=0.9), outcome("typical", acc=typical)]
    claim = said("rates", NOTHING, summary(*arms))
    assert claim.answer == expected
    assert claim.number.mean == pytest.approx(typical - 0.9)
    assert (claim.measure, claim.unit, claim.scale) == ("test accuracy, typical minus dropout", "points", 100)
    assert "of the rates found in dropout 2 of 2 are typical" in claim.reason


@pytest.mark.parametrize(
    ("dropout", "typical", "expected"),
    [
        (0.9, 0.9, "undecided"),  # nobody can tell dropout from none
        (0.8995, 0.8975, "undecided"),
        (0.901, 0.901, "held"),  # every seed is better, by little
        (0.9, 0.901, "held"),
        (0.901, 0.9, "held"),
        (0.95, 0.9, "did not hold"),
    ],
)
def test_typical_rates_do_as_well_only_where_rates_matter(dropout: float, typical: float, expected: str) -> None:
    arms = [outcome("none", acc=0.9), outcome("dropout", acc=dropout), outcome("typical", acc=typical)]
    claim = said("rates", NOTHING, summary(*arms))
    assert claim.answer == expected
    assert ("rates may not matter here" in claim.reason) is (expected == "undecided")


def test_without_the_arm_none_it_is_unknown_whether_rates_matter() -> None:
    claim = said("rates", NOTHING, summary(outcome("dropout"), outcome("typical")))
    assert claim.answer == "undecided"
    assert "but whether rates matter here at all needs the arm none" in claim.reason


def test_a_loss_that_is_judged_by_is_the_worse_the_higher() -> None:
    comparison_metric = ComparisonMetric("test_loss", "test_loss", "test loss", percent=False, higher_is_better=False)
    of = summary(outcome("none"), outcome("dropout"), outcome("typical"), comparison_metric=comparison_metric)
    none = dataclasses.replace(of.arms["none"], test=scores(0.6, 0.9))
    plain = {**of.arms, "none": none}
    of = dataclasses.replace(of, arms=plain, comparisons=compared(plain, comparison_metric))
    worse = dataclasses.replace(of.arms["typical"], test=scores(0.5, 0.9))
    arms = {**of.arms, "typical": worse}
    assert said("rates", NOTHING, of).answer == "held"
    assert said(
        "rates", NOTHING, dataclasses.replace(of, arms=arms, comparisons=compared(arms, comparison_metric))
    ).answer == ("did not hold")


def three(both: float, dropout: float = 0.9, batchnorm: float = 0.85) -> list[ArmOutcome]:
    return [
        outcome("dropout", acc=dropout, val_loss=0.2),
        outcome("batchnorm", acc=batchnorm, val_loss=0.3),
        outcome("both", acc=both),
    ]


@pytest.mark.parametrize(("acc", "expected"), [(0.95, "held"), (0.87, "did not hold"), (0.9, "did not hold")])
def test_both_must_beat_the_better_of_the_two(acc: float, expected: str) -> None:
    claim = said("batchnorm", NOTHING, summary(*three(acc)))
    assert (claim.answer, claim.figure) == (expected, "differences")
    assert claim.measure == "test accuracy, both minus dropout"


def test_validation_decides_the_better_of_the_two() -> None:
    claim = said("batchnorm", NOTHING, summary(*three(0.95, dropout=0.5)))
    assert claim.measure == "test accuracy, both minus dropout"


def test_the_variance_shift_is_given_as_the_reason() -> None:
    found = evidence({"both": {"shift_mean": around(0.6), "recalibration_gain": around(0.012)}})
    claim = said("batchnorm", found, summary(*three(0.87)))
    assert claim.figure == "shift"
    assert claim.reason.endswith(
        "with dropout off BatchNorm meets 0.60 times the variance that it meets with dropout on, and measuring its "
        "statistics again changes accuracy by +1.20 points."
    )


def test_the_gain_of_new_statistics_without_dropout_is_reported_too() -> None:
    found = evidence(
        {
            "both": {"shift_mean": around(0.6), "recalibration_gain": around(0.012)},
            "batchnorm": {"recalibration_gain": around(0.01)},
        }
    )
    reason = said("batchnorm", found, summary(*three(0.87))).reason
    assert reason.endswith("again changes accuracy by +1.20 points, in BatchNorm without dropout by +1.00.")


def test_dropout_beside_batchnorm_takes_all_three_arms() -> None:
    claim = said("batchnorm", NOTHING, summary(outcome("both"), outcome("batchnorm")))
    assert claim.reason == (
        "It needs results of dropout + BatchNorm, dropout and BatchNorm: this run has winners of dropout + BatchNorm, "
        "BatchNorm."
    )


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_hold_nothing(seeds: int) -> None:
    arms = {
        name: ArmEvidence(SEEDS[:seeds], {"gap_best": around(mean)[:seeds]})
        for name, mean in (("none", 0.9), ("dropout", 0.1))
    }
    found = Evidence(arms, contrasts=contrasts(arms))
    claim = said("overfitting", found, summary(outcome("none"), outcome("dropout")))
    assert claim.answer == "undecided"
