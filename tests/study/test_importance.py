from __future__ import annotations

import math

import pytest
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from dropsearch.core.records import ARMS
from dropsearch.study.importance import site_importances, unknown
from dropsearch.study.search_feed import SearchFeed
from dropsearch.study.search_space import Space, SpaceSettings
from tests.study.conftest import SITES, ask, ended


def space_of(rates="per_layer", arm="dropout", sites=SITES):
    return Space(SpaceSettings(rates=rates), ARMS[arm], sites, {site.name: 0.3 for site in sites})


def searched(store, space, trials, loss, state="COMPLETE"):
    """Do a search whose losses (objectives) are a function of the rates."""
    feed = SearchFeed(store, space, total=trials, seed=0, cancelled=lambda: False)
    while specs := feed.ask(1):
        feed.tell([ended(spec, state, loss=loss(spec.rates)) for spec in specs])
    return store


def first_site_loss(rates):
    return (rates["a"] - 0.5) ** 2


def test_deciding_site_has_the_largest_share(make_store):
    space = space_of()
    found = site_importances(searched(make_store(), space, 40, first_site_loss), space)
    assert found["a"] > 0.8
    assert sum(found.values()) == pytest.approx(1)


def test_importances_are_deterministic(make_store):
    space = space_of()
    store = searched(make_store(), space, 20, first_site_loss)
    assert site_importances(store, space) == site_importances(store, space)


def test_importances_equal_optuna(make_store):
    space = space_of()
    store = searched(make_store(), space, 60, first_site_loss)
    optunas = get_param_importances(
        store.seen.study(), evaluator=PedAnovaImportanceEvaluator(), params=["rate.a", "rate.b"], normalize=True
    )
    found = site_importances(store, space)
    assert found == pytest.approx({"a": optunas["rate.a"], "b": optunas["rate.b"]})


@pytest.mark.parametrize(
    ("trials", "loss", "state", "reason"),
    [
        (9, first_site_loss, "COMPLETE", "only 9 of at least 10 required trials are complete"),
        (15, first_site_loss, "FAIL", "only 0 of at least 10 required trials are complete"),
        (15, lambda rates: 0.5, "COMPLETE", "all trials have the same score"),
    ],
)
def test_unknown_importances_are_nan_with_a_reason(make_store, trials, loss, state, reason):
    space = space_of()
    store = make_store()
    if state == "FAIL":
        feed = SearchFeed(store, space, total=1, seed=0, cancelled=lambda: False)
        store.tell([ended(ask(feed), "FAIL", "nan")])
        reason = reason.replace("9", "0")
    else:
        searched(store, space, trials, loss)
    assert unknown(store, space) == reason
    assert all(math.isnan(value) for value in site_importances(store, space).values())


@pytest.mark.parametrize("rates", ["shared", "step"])
def test_shared_rate_has_no_importances(make_store, rates):
    space = space_of(rates)
    store = searched(make_store(), space, 15, first_site_loss)
    assert unknown(store, space) == "fewer than two sites have a rate of their own"
    assert all(math.isnan(value) for value in site_importances(store, space).values())


def test_depth_space_has_importances_of_its_ends(make_store):
    sites = (*SITES, type(SITES[0])("c", "hidden", 0.1, 4))
    space = space_of("depth", sites=sites)
    found = site_importances(searched(make_store(), space, 30, first_site_loss), space)
    assert found["a"] > found["c"]
    assert math.isnan(found["b"])
