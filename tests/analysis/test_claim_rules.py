from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dropsearch.analysis.claim_rules import RULES, Finding, Rule, answer, answer_no_worse, settled, unsettled
from dropsearch.core.records import Comparison, Interval

MARGIN = 0.01
ORDER = {"did not hold": 0, "undecided": 1, "held": 2}
RULE = Rule("overfitting", "Dropout prevents overfitting", "gap_best", -1, MARGIN, "gaps")

bounds = st.tuples(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1)).map(sorted)
p_values = st.floats(0, 1)
sides = st.sampled_from([-1, 1])


def interval(low: float, high: float) -> Interval:
    return Interval((low + high) / 2, low, high)


@pytest.mark.parametrize(
    ("low", "high", "p", "expected"),
    [
        (0.005, 0.02, 0.04, "held"),
        (0.005, 0.02, 0.05, "undecided"),  # p after Holm must be below 0.05
        (0.0, 0.02, 0.01, "undecided"),  # zero is not on the claimed side
        (1e-9, 0.02, 0.01, "held"),
        (-0.005, 0.02, 0.01, "undecided"),
        (-0.005, 0.01, 0.01, "undecided"),  # an effect that would just matter is not ruled out
        (-0.005, 0.0099, 0.5, "did not hold"),
        (0.001, 0.009, 0.01, "held"),  # small, and sure
        (0.001, 0.009, 0.5, "did not hold"),
        (-0.03, -0.02, 0.01, "did not hold"),
        (-0.03, -0.02, 1.0, "did not hold"),
        (-0.3, 0.3, 1.0, "undecided"),
        (0.0, 0.0, 1.0, "did not hold"),
    ],
)
def test_the_answer_at_the_boundaries(low: float, high: float, p: float, expected: str) -> None:
    assert answer(interval(low, high), p, side=1, margin=MARGIN) == expected
    assert answer(interval(-high, -low), p, side=-1, margin=MARGIN) == expected


@given(bounds, p_values, st.floats(0, 0.2), st.floats(0, 0.2))
def test_an_interval_further_on_the_claimed_side_is_never_the_weaker_answer(
    at: list[float], p: float, up: float, more: float
) -> None:
    low, high = at
    before = answer(interval(low, high), p, side=1, margin=MARGIN)
    after = answer(interval(low + up, high + max(up, more)), p, side=1, margin=MARGIN)
    assert ORDER[before] <= ORDER[after]


@given(bounds, p_values, p_values, sides)
def test_a_smaller_p_is_never_the_weaker_answer(at: list[float], p: float, other: float, side: int) -> None:
    found = interval(*at)
    small, large = (answer(found, each, side=side, margin=MARGIN) for each in sorted((p, other)))  # type: ignore[arg-type]
    assert ORDER[small] >= ORDER[large]


@given(bounds, p_values)
def test_the_answer_flips_with_the_sign(at: list[float], p: float) -> None:
    low, high = at
    one = answer(interval(low, high), p, side=1, margin=MARGIN)
    assert one == answer(interval(-high, -low), p, side=-1, margin=MARGIN)
    other = answer(interval(low, high), p, side=-1, margin=MARGIN)
    assert {one, other} != {"held"}
    if one == "held":
        assert other == "did not hold"


@given(bounds, p_values, st.floats(0, 0.05))
def test_what_a_wide_interval_settles_a_narrower_one_inside_it_settles_too(
    at: list[float], p: float, wider: float
) -> None:
    low, high = at
    narrow = answer(interval(low, high), p, side=1, margin=MARGIN)
    wide = answer(interval(low - wider, high + wider), p, side=1, margin=MARGIN)
    assert wide == "undecided" or narrow != "undecided"
    assert wide != "held" or narrow == "held"


@pytest.mark.parametrize("low", [math.nan, -math.inf])
def test_without_an_interval_nothing_is_shown(low: float) -> None:
    found = Interval(0.5, low, math.nan)
    assert answer(found, 0.001, side=1, margin=MARGIN) == "undecided"
    assert answer_no_worse(found, side=1, margin=MARGIN) == "undecided"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-0.0099, 0.02, "held"),
        (-0.01, 0.02, "undecided"),
        (-0.02, 0.0, "undecided"),
        (-0.02, -1e-9, "did not hold"),
        (-0.009, -0.001, "held"),  # worse for sure, by too little to matter
        (0.02, 0.03, "held"),
    ],
)
def test_being_no_worse_at_the_boundaries(low: float, high: float, expected: str) -> None:
    assert answer_no_worse(interval(low, high), side=1, margin=MARGIN) == expected
    assert answer_no_worse(interval(-high, -low), side=-1, margin=MARGIN) == expected


@given(bounds, st.floats(0, 0.2), sides)
def test_being_no_worse_is_monotone_too(at: list[float], up: float, side: int) -> None:
    low, high = at
    moved = interval(low + side * up, high + side * up)
    before = answer_no_worse(interval(low, high), side=side, margin=MARGIN)  # type: ignore[arg-type]
    assert ORDER[before] <= ORDER[answer_no_worse(moved, side=side, margin=MARGIN)]  # type: ignore[arg-type]


def found(low: float, high: float, p: float = 0.01, seeds: int = 10, **options: object) -> Finding:
    difference = interval(low, high) if seeds > 1 else Interval(low, math.nan, math.nan)
    contrast = Comparison("dropout", "none", "gap_best", (0.0,) * seeds, difference, p, p_holm=p)
    number = Finding("gap, dropout minus none", "gap", "in dropout than in none", contrast, family=5, unit="nats")
    return dataclasses.replace(number, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("number", "no_worse", "sentence"),
    [
        (
            found(-0.04, -0.02),
            False,
            "Gap is 0.03 nats lower in dropout than in none (95 % interval 0.02 to 0.04, p 0.01 after Holm, "
            "10 seeds): the whole interval lies on the claimed side.",
        ),
        (
            found(0.02, 0.04),
            False,
            "Gap is 0.03 nats higher in dropout than in none (95 % interval 0.02 to 0.04, p 0.01 after Holm, "
            "10 seeds): the whole interval lies on the other side of what is claimed.",
        ),
        (
            found(-0.008, -0.004),
            False,
            "Gap is 0.006 nats lower in dropout than in none (95 % interval 0.004 to 0.008, p 0.01 after Holm, "
            "10 seeds): the whole interval lies on the claimed side, though below 0.01 nats, the smallest that would "
            "matter.",
        ),
        (
            found(-0.008, 0.004),
            False,
            "Gap is 0.002 nats lower in dropout than in none (95 % interval 0.008 lower to 0.004 higher, "
            "p 0.01 after Holm, 10 seeds): an effect of 0.01 nats, the smallest that would matter, is ruled out.",
        ),
        (
            found(-0.04, 0.02, p=0.6),
            False,
            "Gap is 0.01 nats lower in dropout than in none (95 % interval 0.04 lower to 0.02 higher, "
            "p 0.6 after Holm, 10 seeds): both no effect and one of 0.01 nats or more remain possible.",
        ),
        (
            found(-0.04, -0.02, p=0.31, seeds=5),
            False,
            "Gap is 0.03 nats lower in dropout than in none (95 % interval 0.02 to 0.04, p 0.31 after Holm, "
            "5 seeds): the interval lies on the claimed side, but the exact test cannot tell it from chance, which "
            "takes confirm.seeds=8 or more.",
        ),
        (
            found(-0.04, 0.005, unit="points", scale=100),
            True,
            "Gap is 1.75 points lower in dropout than in none (95 % interval 4 lower to 0.5 higher, "
            "p 0.01 after Holm, 10 seeds): a loss of 1 points, the smallest that would matter, is ruled out.",
        ),
        (
            found(-0.03, -0.03, p=1.0, seeds=1),
            False,
            "Gap is 0.03 nats lower in dropout than in none (p 1 after Holm, 1 seed): "
            "there are too few seeds for an interval.",
        ),
    ],
)
def test_the_sentence_gives_the_numbers_and_what_follows(number: Finding, no_worse: bool, sentence: str) -> None:
    assert settled(RULE, number, no_worse=no_worse).reason == sentence


@pytest.mark.parametrize(("p", "text"), [(0.0496, "p 0.0496 after"), (0.05, "p 0.05 after"), (2e-5, "p <0.001 after")])
def test_p_in_a_sentence_stays_on_its_side_of_the_level(p: float, text: str) -> None:
    reason = settled(RULE, found(-0.04, -0.02, p=p)).reason
    assert text in reason
    assert ("on the claimed side, but" not in reason) is (p < 0.05)


@given(bounds, p_values, sides, st.booleans())
def test_a_settled_claim_says_what_its_number_says(at: list[float], p: float, side: int, no_worse: bool) -> None:
    assume(at[0] < at[1])
    rule = dataclasses.replace(RULE, side=side)
    claim = settled(rule, found(*at, p=p), no_worse=no_worse, more="and more")
    expected = (
        answer_no_worse(interval(*at), side=rule.side, margin=MARGIN)
        if no_worse
        else answer(interval(*at), p, side=rule.side, margin=MARGIN)
    )
    assert claim.answer == expected
    assert claim.number == interval(*at)
    assert claim.reason.endswith("; and more.")
    assert claim.reason.count("\n") == 0


def test_an_unsettled_claim_is_not_measured_and_has_no_interval() -> None:
    claim = unsettled(RULE, "gap", "Nothing was measured.", 0.5)
    assert (claim.answer, claim.number.mean, claim.reason) == ("not measured", 0.5, "Nothing was measured.")
    assert math.isnan(claim.number.low)
    assert math.isnan(claim.number.high)


def test_every_claim_has_its_own_margin_and_figure() -> None:
    assert all(rule.margin > 0 for rule in RULES)
    assert len({rule.figure for rule in RULES}) == len({rule.name for rule in RULES}) == len(RULES)
