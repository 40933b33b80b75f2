"""A storage has the rates themselves as parameters, as anyone reads them who opens the study with Optuna."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState

from dropsearch.study.readable_rates import RateDistribution
from dropsearch.study.storage import open_storage
from dropsearch.study.store import StudyStore
from tests.study.conftest import make_feed, make_space, work

KINDS = ["journal", "sqlite", "memory"]


def storage_of(kind: str, folder: Path) -> BaseStorage:
    if kind == "memory":
        return InMemoryStorage()
    return open_storage(f"sqlite:///{folder / 'study.db'}" if kind == "sqlite" else None, folder / "study.journal")


def store_of(storage: BaseStorage) -> StudyStore:
    return StudyStore(storage, "s/dropout", arm="dropout", phase="search", fingerprint={})


@pytest.mark.parametrize("low", [0.0, 0.1])
@pytest.mark.parametrize("kind", KINDS)
def test_optuna_reads_the_rates_that_were_trained(kind: str, low: float, tmp_path: Path) -> None:
    storage = storage_of(kind, tmp_path)
    specs = work(make_feed(store_of(storage), 12, low=low, zero_share=0.3))
    read = optuna.load_study(study_name="s/dropout", storage=storage).trials
    assert [trial.state for trial in read] == [TrialState.COMPLETE] * 12
    for spec, trial in zip(specs, read, strict=True):
        assert {name: trial.params[f"rate.{name}"] for name in "ab"} == dict(spec.rates)
        assert trial.distributions["rate.a"] == FloatDistribution(0.0, 0.9)
        assert trial.params["lr"] == spec.lr
    zero = read[1]
    assert (zero.params["rate.a"], zero.params["rate.b"]) == (0.0, 0.0), "the point without dropout"


@pytest.mark.parametrize("kind", KINDS)
def test_the_sampler_gets_its_coordinates_back(kind: str, tmp_path: Path) -> None:
    storage, space = storage_of(kind, tmp_path), make_space()
    first = store_of(storage)
    specs = work(make_feed(first, 8))
    again = store_of(storage)
    assert [dict(result.spec.params) for result in again.results()] == [dict(spec.params) for spec in specs]
    assert any(spec.params["rate.a"] < 0 for spec in specs), "a coordinate that means 0"
    for trial in again.seen.of(TrialState.COMPLETE):
        assert trial.distributions == space.distributions
        assert space.rates(trial.params) == dict(specs[trial.number].rates)


def test_an_interrupted_trial_begins_again_with_its_coordinates(tmp_path: Path) -> None:
    storage = storage_of("sqlite", tmp_path)
    feed = make_feed(store_of(storage), 3)
    (spec,) = feed.ask(1)
    feed.store.release({spec.number: "stopped"})
    (again,) = make_feed(store_of(storage), 3).ask(1)
    assert (again.number, dict(again.params)) == (1, dict(spec.params))


def test_a_coordinate_below_the_least_rate_means_zero() -> None:
    each = RateDistribution(-0.2, 0.9, least=0.1)
    assert [each.rate(coordinate) for coordinate in (-0.2, 0.0, 0.0999, 0.1, 0.9)] == [0, 0, 0, 0.1, 0.9]
    assert each.readable == FloatDistribution(0.0, 0.9)
    assert RateDistribution(0.1, 0.9, least=0.1).readable == FloatDistribution(0.1, 0.9)
