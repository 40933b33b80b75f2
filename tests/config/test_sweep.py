from __future__ import annotations

import pytest

from dropsearch.config.compose import check_jobs
from dropsearch.core.errors import InputError
from tests.config.conftest import RawCompose


@pytest.fixture(autouse=True)
def _hydra_is_ready(raw: RawCompose) -> None: ...


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=mlp,cnn", "data=digits,mnist1d"],
        ["seed=0,1", "study.name=s${seed}"],
        ["seed=range(0,3)", "study.name=s${seed}"],
        ["space.high=0.5,0.9", "study.name=x-${space.high}", "model=cnn"],
        ["seed=0,1", "output_dir=out${seed}"],
    ],
)
def test_a_sweep_of_good_jobs_may_begin(overrides: list[str]):
    check_jobs("config", overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["study.n_trials=1,0"], "study.n_trials must be at least 1, got 0"),
        (["seed=0,1", "output_dir=out${seed}", "study.storage=sqlite:///x.db"], "study.name must differ"),
        (["seed=0,1"], 'study.name must differ between the jobs of a sweep, got "mlp-digits" for both "seed=0" and'),
        (["seed=interval(0,1)"], "seed must list the values of a sweep"),
    ],
)
def test_one_bad_job_stops_the_sweep_before_it_begins(overrides: list[str], message: str):
    with pytest.raises(InputError) as caught:
        check_jobs("config", overrides)
    assert message in str(caught.value)


def test_retrainings_share_what_they_like():
    check_jobs("config", ["task=retrain", "retrain.arm=dropout", "retrain.lr=0.1,0.01"])
