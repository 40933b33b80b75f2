"""Search space of rates, which includes exactly zero."""

from __future__ import annotations

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dropsearch.core.records import ARMS, Choice, Numbers, Range, Site
from dropsearch.study.search_space import Space, SpaceSettings

SITES = (Site("a", "input", 0.1, 4), Site("b", "hidden", 0.1, 4), Site("c", "hidden", 0.1, 4))
TYPICAL = {"a": 0.15, "b": 0.4, "c": 0.4}


def space(arm: str = "dropout", **settings: object) -> Space:
    return Space(SpaceSettings(**settings), ARMS[arm], SITES, TYPICAL)  # type: ignore[arg-type]


def sampled(space: Space, trials: int = 400) -> list[dict[str, float]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [space.rates(study.ask(fixed_distributions=space.distributions).params) for _ in range(trials)]


def test_zero_is_proposed_with_zero_share() -> None:
    rates = [rate for trial in sampled(space(zero_share=0.25)) for rate in trial.values()]
    share = sum(rate == 0 for rate in rates) / len(rates)
    assert share == pytest.approx(0.25, abs=0.05)
    assert all(0 <= rate <= 0.9 for rate in rates)


def test_without_zero_share_rates_stay_in_range() -> None:
    rates = [rate for trial in sampled(space(zero_share=0.0, low=0.2), 50) for rate in trial.values()]
    assert min(rates) >= 0.2


def test_per_layer_space_has_one_rate_per_site() -> None:
    assert [p for p in space().distributions if p.startswith("rate.")] == ["rate.a", "rate.b", "rate.c"]
    assert len(set(sampled(space(), 1)[0].values())) == 3


def test_shared_space_has_one_rate() -> None:
    (trial,) = sampled(space(rates="shared", zero_share=0.0), 1)
    assert len(set(trial.values())) == 1
    (trial,) = sampled(space("dropout_shared", zero_share=0.0), 1)
    assert len(set(trial.values())) == 1


@given(first=st.floats(0, 0.9), last=st.floats(0, 0.9))
def test_depth_space_is_linear(first: float, last: float) -> None:
    rates = space(rates="depth").rates({"rate.first": first, "rate.last": last})
    assert rates["a"] == pytest.approx(first)
    assert rates["b"] == pytest.approx((first + last) / 2)
    assert rates["c"] == pytest.approx(last)


@pytest.mark.parametrize(("count", "ends"), [(1, ["rate.first"]), (2, ["rate.first", "rate.last"])])
def test_depth_space_has_no_rate_that_no_site_has(count: int, ends: list[str]) -> None:
    known = space(rates="depth")
    few = Space(known.settings, known.arm, SITES[:count], known.typical)
    assert [name for name in few.distributions if name.startswith("rate.")] == ends


@given(rate=st.floats(0, 0.9), step=st.integers(1, 3))
def test_step_space_has_one_rate_and_then_zero(rate: float, step: int) -> None:
    rates = space(rates="step").rates({"rate.first": rate, "step.sites": step})
    assert list(rates.values()) == [rate] * step + [0.0] * (3 - step)


def test_step_space_proposes_every_position() -> None:
    trials = sampled(space(rates="step", zero_share=0.0, low=0.1), 100)
    assert {sum(rate > 0 for rate in trial.values()) for trial in trials} == {1, 2, 3}
    assert all(len({rate for rate in trial.values() if rate}) == 1 for trial in trials)


def test_step_space_of_one_site() -> None:
    it = Space(SpaceSettings(rates="step", zero_share=0.0), ARMS["dropout"], SITES[:1], TYPICAL)
    assert all(list(trial) == ["a"] for trial in sampled(it, 5))


def test_step_is_of_searching_arms_alone() -> None:
    assert "step.sites" in space("both", rates="step").distributions
    for arm in ("none", "typical", "dropout_shared", "batchnorm"):
        assert "step.sites" not in space(arm, rates="step").distributions


@pytest.mark.parametrize("form", ["per_layer", "shared", "depth", "step"])
def test_first_points_are_typical_and_zero(form: str) -> None:
    typical, zero = (space(rates=form).rates(point) for point in space(rates=form).first_points)
    assert set(zero.values()) == {0.0}
    assert typical["a"] == pytest.approx(sum(TYPICAL.values()) / 3 if form in ("shared", "step") else 0.15)


def test_first_points_lie_in_the_space() -> None:
    for settings in ({}, {"low": 0.2, "high": 0.3}, {"zero_share": 0.0}, {"rates": "step"}):
        it = space(**settings)
        for point in it.first_points:
            assert all(it.distributions[name]._contains(value) for name, value in point.items())


@pytest.mark.parametrize("arm", list(ARMS))
def test_optimizer_ranges_are_equal_in_all_arms(arm: str) -> None:
    own, reference = space(arm).distributions, space("dropout").distributions
    assert own["lr"] == reference["lr"]
    assert own["weight_decay"] == reference["weight_decay"]


def test_arms_without_dropout_have_no_rates() -> None:
    assert sampled(space("none"), 1) == [{}]
    assert sampled(space("batchnorm"), 1) == [{}]


def test_typical_arm_has_typical_rates() -> None:
    assert sampled(space("typical"), 1) == [TYPICAL]


def test_uncontrollable_site_is_not_searched() -> None:
    fused = Site("lstm", "rnn", 0.2, 4, controllable=False, reason="fused")
    it = Space(SpaceSettings(), ARMS["dropout"], (*SITES, fused), {**TYPICAL, "lstm": 0.2})
    assert "rate.lstm" not in it.distributions


EXTRA: dict[str, Range] = {
    "model.hidden": Choice(([8], [16])),
    "model.width": Numbers(4, 64, log=True, step=1),
    "optimizer.momentum": Numbers(0.5, 0.99),
}
START = {"model.hidden": [16], "model.width": 16, "optimizer.momentum": 0.9}


@pytest.mark.parametrize("arm", list(ARMS))
def test_hyperparameter_ranges_are_equal_in_all_arms(arm: str) -> None:
    own, reference = (space(name, hyperparameters=EXTRA, start=START).distributions for name in (arm, "none"))
    assert list(own.items())[: len(reference)] == list(reference.items())
    assert set(EXTRA) <= set(reference)


def test_first_points_have_first_values() -> None:
    for arm in ("none", "dropout"):
        it = space(arm, hyperparameters=EXTRA, start=START)
        assert [it.hyperparameters(point) for point in it.first_points] == [START] * len(it.first_points)


def test_proposed_hyperparameters_are_converted_to_values() -> None:
    it = space(hyperparameters=EXTRA, start=START)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    values = it.hyperparameters(study.ask(fixed_distributions=it.distributions).params)
    assert list(values) == list(EXTRA)
    assert all(EXTRA[key].holds(value) for key, value in values.items())
