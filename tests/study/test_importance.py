from __future__ import annotations

import math

import pytest
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from dropsearch.core.records import ARMS
from dropsearch.study.feeds import SearchFeed
from dropsearch.study.importance import site_importances, unknown
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


def a_alone(rates):
    return (rates["a"] - 0.5) ** 2


def test_the_site_that_decides_the_score_has_the_greater_share(make_store):
    space = space_of()
    found = site_importances(searched(make_store(), space, 40, a_alone), space)
    assert found["a"] > 0.8
    assert sum(found.values()) == pytest.approx(1)


def test_asked_again_it_says_the_same(make_store):
    space = space_of()
    store = searched(make_store(), space, 20, a_alone)
    assert site_importances(store, space) == site_importances(store, space)


def test_with_many_trials_it_is_optunas_own_answer_for_the_rates(make_store):
    space = space_of()
    store = searched(make_store(), space, 60, a_alone)
    optunas = get_param_importances(
        store.seen.study(), evaluator=PedAnovaImportanceEvaluator(), params=["rate.a", "rate.b"], normalize=True
    )
    found = site_importances(store, space)
    assert found == pytest.approx({"a": optunas["rate.a"], "b": optunas["rate.b"]})


@pytest.mark.parametrize(
    ("trials", "loss", "state", "reason"),
    [
        (9, a_alone, "COMPLETE", "9 complete trials are too few: it takes 10"),
        (15, a_alone, "FAIL", "0 complete trials are too few: it takes 10"),
        (15, lambda rates: 0.5, "COMPLETE", "all trials scored alike"),
    ],
)
def test_where_nothing_can_be_said_it_is_nan_and_there_is_a_reason(make_store, trials, loss, state, reason):
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


def test_one_rate_for_all_sites_tells_no_site_from_another(make_store):
    space = space_of("shared")
    store = searched(make_store(), space, 15, a_alone)
    assert unknown(store, space) == "no two sites have rates of their own"
    assert all(math.isnan(value) for value in site_importances(store, space).values())


def test_of_a_line_by_depth_only_the_ends_have_rates_of_their_own(make_store):
    sites = (*SITES, type(SITES[0])("c", "hidden", 0.1, 4))
    space = space_of("depth", sites=sites)
    found = site_importances(searched(make_store(), space, 30, a_alone), space)
    assert found["a"] > found["c"]
    assert math.isnan(found["b"])
