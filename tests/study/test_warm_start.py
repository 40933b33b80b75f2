"""First points of a search that come from an earlier study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dropsearch.core.records import Choice, Numbers, TrialResult, TrialSpec
from dropsearch.study.search_space import STEP, Space
from dropsearch.study.storage import open_storage
from dropsearch.study.store import StudyStore
from dropsearch.study.warm_start import MOST_POINTS, EarlierStudy, Points, earlier_study
from tests.study.conftest import ended, make_feed, make_space, work

RATES = {"a": 0.2, "b": 0.5}
ENDS = {"rate.first": 0.1, "rate.last": 0.3}


def trial(
    number: int,
    arm: str = "dropout",
    lr: float = 1e-3,
    rates: dict[str, float] = RATES,
    params: dict[str, Any] | None = None,
    hyperparameters: dict[str, Any] | None = None,
) -> TrialResult:
    return ended(
        TrialSpec(
            arm,
            number,
            seed=number,
            rates=rates,
            lr=lr,
            weight_decay=1e-4,
            params=params or {},
            hyperparameters=hyperparameters or {},
        )
    )


def points(space: Space, *trials: TrialResult) -> Points:
    by_arm: dict[str, list[TrialResult]] = {}
    for each in trials:
        by_arm.setdefault(each.spec.arm, []).append(each)
    return EarlierStudy("s", "net.Net", ("a", "b"), by_arm).points(space)


def test_best_trials_of_the_same_arm_come_first() -> None:
    found = points(make_space(), trial(3, lr=1e-3), trial(7, lr=2e-3), trial(0, "none", 5e-4, {}))
    assert [point["lr"] for point in found.points] == [1e-3, 2e-3, 5e-4]
    assert found.points[0] == {"lr": 1e-3, "weight_decay": 1e-4, "rate.a": 0.2, "rate.b": 0.5}
    assert found.left_out == {}


def test_points_of_other_arms_leave_rates_to_the_sampler() -> None:
    (point,) = points(make_space(), trial(0, "none", rates={"a": 0.0, "b": 0.0})).points
    assert point == {"lr": 1e-3, "weight_decay": 1e-4}
    (point,) = points(make_space("none"), trial(0)).points
    assert point == {"lr": 1e-3, "weight_decay": 1e-4}


def test_similar_arms_come_before_better_ones() -> None:
    found = points(make_space("both"), trial(0, lr=1e-3), trial(1, "batchnorm", lr=2e-3))
    assert [point["lr"] for point in found.points] == [2e-3, 1e-3]


def test_points_are_few_and_different() -> None:
    found = points(make_space("none"), *(trial(i, lr=1e-3 * (1 + i // 2)) for i in range(20)))
    assert [point["lr"] for point in found.points] == pytest.approx([1e-3, 2e-3, 3e-3, 4e-3, 5e-3])
    assert len(found.points) == MOST_POINTS


def test_points_that_are_tried_anyway_are_left_out() -> None:
    space = make_space(lr=(1e-4, 1e-2), weight_decay=(1e-6, 1e-2), own={"lr": 1e-3})
    tried = points(space, trial(0, rates=space.typical), trial(1, rates={"a": 0.0, "b": 0.0}))
    assert (tried.points, tried.is_tried) == ([], True)
    assert not points(space, trial(0, rates=RATES)).is_tried
    assert len(points(space, trial(0, rates=RATES)).points) == 1


@pytest.mark.parametrize(
    ("settings", "rates", "left_out", "kept"),
    [
        ({"lr": (1e-2, 1e-1)}, RATES, {"lr": "0.001 is out of range"}, {"a": 0.2, "b": 0.5}),
        ({"high": 0.4}, RATES, {"rate.b": "0.5 is out of range"}, {"a": 0.2}),
        ({"low": 0.3}, RATES, {"rate.a": "0.2 is out of range"}, {"b": 0.5}),
        ({"low": 0.3}, {"a": 0.0, "b": 0.5}, {}, {"a": 0.0, "b": 0.5}),
        ({"low": 0.3, "zero_share": 0.0}, {"a": 0.0, "b": 0.5}, {"rate.a": "0 is out of range"}, {"b": 0.5}),
        ({}, {"a": 0.2, "c": 0.3}, {"rate.c": "not searched here"}, {"a": 0.2}),
        ({"fixed": ("weight_decay",)}, RATES, {}, {"a": 0.2, "b": 0.5}),
    ],
)
def test_values_outside_the_space_are_left_out(settings: Any, rates: Any, left_out: Any, kept: Any) -> None:
    space = make_space(**settings)
    found = points(space, trial(0, rates=rates))
    assert found.left_out == left_out
    (point,) = found.points
    assert point.keys() <= space.distributions.keys()
    assert all(space.distributions[name]._contains(value) for name, value in point.items())
    rates = {site: point[f"rate.{site}"] for site in "ab" if f"rate.{site}" in point}
    assert {site: space._rate_distribution.rate(each) for site, each in rates.items()} == kept


@pytest.mark.parametrize(
    ("form", "params", "rates", "expected", "left_out"),
    [
        ("per_layer", {"rate.shared": 0.3}, {"a": 0.3, "b": 0.3}, {"rate.a": 0.3, "rate.b": 0.3}, set()),
        ("shared", {"rate.shared": 0.3}, {"a": 0.3, "b": 0.3}, {"rate.shared": 0.3}, set()),
        ("depth", ENDS, {"a": 0.1, "b": 0.3}, ENDS, set()),
        ("step", {"rate.first": 0.3, STEP: 1}, {"a": 0.3, "b": 0.0}, {"rate.first": 0.3, STEP: 1}, set()),
        ("step", ENDS, {"a": 0.1, "b": 0.3}, {}, {"rate.a", "rate.b"}),
        ("depth", {"rate.first": 0.3, STEP: 1}, {"a": 0.3, "b": 0.0}, {}, {"rate.a", "rate.b"}),
        ("shared", {"rate.a": 0.2, "rate.b": 0.5}, RATES, {}, {"rate.a", "rate.b"}),
    ],
)
def test_rates_take_the_form_of_the_space(form: str, params: Any, rates: Any, expected: Any, left_out: Any) -> None:
    found = points(make_space(rates=form), trial(0, rates=rates, params=params))
    assert {name: rate for name, rate in found.points[0].items() if name.startswith(("rate.", STEP))} == expected
    assert found.left_out.keys() == left_out


def test_hyperparameters_are_checked_against_their_ranges() -> None:
    ranges = {"model.hidden": Choice(([8], [16])), "model.width": Numbers(4, 64), "optimizer.momentum": Numbers(0.5, 1)}
    space = make_space(hyperparameters=ranges, start={"model.hidden": [8], "model.width": 4, "optimizer.momentum": 0.9})
    values = {"model.hidden": [16], "model.width": 128, "optimizer.betas": [0.9, 0.99]}
    found = points(space, trial(0, hyperparameters=values))
    assert found.points[0]["model.hidden"] == "[16]"
    assert found.left_out == {"model.width": "128 is out of range", "optimizer.betas": "not searched here"}


def test_first_trials_are_those_of_the_space_then_earlier_ones(make_store: Callable[..., StudyStore]) -> None:
    earlier = {"dropout": [{"lr": 5e-3, "weight_decay": 1e-5}]}
    store = make_store()
    specs = work(make_feed(store, 4, earlier=earlier))
    assert (specs[2].lr, specs[2].weight_decay) == (5e-3, 1e-5)
    assert specs[3].lr != 5e-3
    plain = work(make_feed(make_store(arm="none"), 3, earlier=earlier))
    assert 5e-3 not in [spec.lr for spec in plain]


def test_a_study_is_read_back(make_store: Callable[..., StudyStore], tmp_path: Path) -> None:
    store = make_store(**{"model.class": "net.Net"})
    specs = work(make_feed(store, 5))
    found = earlier_study(open_storage(None, tmp_path / "study.journal"), None)
    assert (found.name, found.module, found.sites) == ("s", "net.Net", ("a", "b"))
    best = min(specs, key=lambda spec: spec.lr)  # its loss is its learning rate
    assert found.trials["dropout"][0].spec == best
    (first, *_) = found.points(make_space()).points
    assert make_space().rates(first) == best.rates
