"""A study gives the same table whatever trains it; `test_params.py` compares vectorized training in one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dropsearch.config.compose import compose_overrides
from dropsearch.experiment.tasks import run

ARMS = ("none", "both")


def table(folder: Path, *more: str) -> dict[str, Any]:
    """Run a small study with one engine and return results.json.

    In float64: in float32 a unit that dropout leaves almost always at zero has BatchNorm scale up the rounding of
    two orders of summation, by up to 1 / sqrt(eps).
    """
    overrides = [
        f"arms=[{','.join(ARMS)}]", "data.train_size=128", "model.hidden=[16,12]", "sampler=random", "pruner=none",
        "study.n_trials=3", "trainer.max_epochs=1", "confirm.top_k=1", "confirm.seeds=2", "tracking=none",
        "trainer.precision=64-true", "evidence=off",
        f"output_dir={folder}",
    ]  # fmt: skip
    assert run(compose_overrides([*overrides, *more])) == 0
    return json.loads((folder / "results.json").read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return table(tmp_path_factory.mktemp("sequential"), "engine=sequential")


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        (("engine=auto", "engine.processes=2"), "vectorized"),
        (("engine=sequential", "engine.processes=2"), "sequential"),
    ],
)
def test_every_engine_gives_the_same_table_trial_by_trial(
    alone: dict[str, Any], tmp_path: Path, engine: tuple[str, ...], name: str
) -> None:
    theirs = table(tmp_path, *engine)
    assert name in theirs["engine"]
    for arm in ARMS:
        expected = {trial["seed"]: trial for trial in alone["arms"][arm]["trials"]}
        got = {trial["seed"]: trial for trial in theirs["arms"][arm]["trials"]}
        assert got.keys() == expected.keys()
        for seed, trial in expected.items():
            assert got[seed]["state"] == trial["state"]
            assert got[seed]["rates"] == trial["rates"]
            assert got[seed]["val_loss"] == pytest.approx(trial["val_loss"], abs=1e-8)
        ours, winner = alone["arms"][arm]["winner"], theirs["arms"][arm]["winner"]
        assert winner["test_loss"] == pytest.approx(ours["test_loss"], abs=1e-6)


def test_the_engine_is_named_in_the_results(alone: dict[str, Any]) -> None:
    assert alone["engine"].startswith("sequential on cpu")
