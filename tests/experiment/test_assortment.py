"""An assortment of modules that nobody wrote for this: which train in an array, and that nothing depends on it."""

from __future__ import annotations

from pathlib import Path

import pytest

import dropsearch
from dropsearch.core.errors import InputError
from tests.user_modules import assortment as user_modules
from tests.user_modules import data, nets

TINY = {
    "n_trials": 2,
    "max_epochs": 2,
    "confirm_top_k": 1,
    "confirm_seeds": 1,
    "accelerator": "cpu",
    "arms": ["dropout"],
}
# In float32 a bias before a BatchNorm has a gradient of noise alone, which Adam makes steps of: what is compared
# is float64.
DOUBLE = "trainer.precision=64-true"
ARRAYED = ["engine.processes=1", "engine.width=2", DOUBLE]


WHOLE = (
    user_modules.Encoder,
    user_modules.Recurrent,
    user_modules.Tied,
    user_modules.Frozen,
    user_modules.Averaging,
    user_modules.OneCycle,
)
"""Modules with something that grows over an epoch, or that rows share: their whole trials are compared."""


def searched(make: type, folder: Path, engine: str, overrides: list[str]) -> dropsearch.api.result.SearchResult:  # type: ignore[name-defined]
    given = [*overrides, "evidence=off"]
    return dropsearch.search(make, data.Digits(), engine=engine, output_dir=folder, overrides=given, **TINY)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("make", "sites"),
    [
        (user_modules.Listed, ["drops.0", "drops.1", "model"]),
        (user_modules.Looped, ["model", "drop"]),
        (
            user_modules.Encoder,
            [
                "encoder.layers.0.self_attn",
                "encoder.layers.0.dropout1",
                "encoder.layers.0.dropout",
                "encoder.layers.0.dropout2",
            ],
        ),
        (user_modules.OneLayer, ["drop"]),
        (user_modules.Recurrent, ["rnn", "drop"]),
        (user_modules.Branched, ["model", "drop"]),
        (user_modules.Branching, ["drop"]),
        (user_modules.Tied, ["drop"]),
        (user_modules.Frozen, ["model", "drop"]),
        (user_modules.Backbone, ["model", "drop"]),
        (user_modules.Averaging, ["model", "drop"]),
        (user_modules.OneCycle, ["model", "drop"]),
        (user_modules.Noisy, ["model", "drop"]),
        (nets.Normed, ["model", "drop"]),
    ],
)
def test_what_trains_in_an_array_trains_alike_alone(make: type, sites: list[str], tmp_path: Path):
    array = searched(make, tmp_path / "vectorized", "vectorized", ARRAYED)
    assert array.summary.engine.startswith("vectorized, 2 trials"), "the proof found the first steps alike"
    assert [site.name for site in array.summary.sites if site.controllable] == sites
    trials = array.trials_dataframe()
    assert list(trials["state"]) == ["COMPLETE"] * 2
    if make in WHOLE:
        alone = searched(make, tmp_path / "sequential", "sequential", [DOUBLE]).trials_dataframe()
        assert list(alone["state"]) == ["COMPLETE"] * 2
        assert list(trials["val_loss"]) == pytest.approx(list(alone["val_loss"]), abs=1e-8)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (user_modules.Reassigning, "differs between vectorized and sequential training"),
    ],
)
def test_what_cannot_train_vectorized_names_the_reason(make: type, reason: str, tmp_path: Path):
    with pytest.raises(InputError, match="engine=vectorized needs a module") as caught:
        searched(make, tmp_path / "vectorized", "vectorized", [])
    assert reason in str(caught.value)
    found = searched(make, tmp_path / "auto", "auto", ["engine.processes=1"])
    assert found.summary.engine.startswith("sequential on cpu: ")
    assert list(found.trials_dataframe()["state"]) == ["COMPLETE"] * 2
