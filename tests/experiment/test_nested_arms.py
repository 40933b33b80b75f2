"""Arms that choose the same model are the same, everywhere that a run shows them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dropsearch.core.records import Summary
from dropsearch.experiment.scoring import ExampleResults
from dropsearch.experiment.tasks.search import searched
from dropsearch.experiment.user_module import TrialModules
from tests.experiment.conftest import LIGHT, composed

SETTINGS = (*LIGHT, "confirm.seeds=6", "confirm.top_k=1", "trainer.max_epochs=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which every rate that is found is zero, as no other point is proposed."""
    out = tmp_path_factory.mktemp("nested") / "out"
    all_zero(*SETTINGS, f"output_dir={out}")
    return out


def all_zero(*overrides: str) -> Summary:
    """Search where each proposed rate is zero."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "dropsearch.study.search_space.Space.first_points", property(lambda self: (self._zero_point(),) * 3)
        )
        return searched(composed(*overrides))


def test_an_arm_that_chose_no_dropout_is_the_arm_without(folder: Path) -> None:
    found = json.loads((folder / "results.json").read_text())
    for on, off in (("dropout", "none"), ("both", "batchnorm")):
        one, other = found["arms"][on]["winner"], found["arms"][off]["winner"]
        assert not any(one["rates"].values())
        for key in ("judged", "test_loss", "mean_val_loss", "seeds"):
            assert one[key] == other[key]
        (contrast,) = [c for c in found["comparisons"] if {c["a"], c["b"]} == {on, off}]
        assert (contrast["difference"], contrast["p"], contrast["shown"]) == (0.0, 1.0, False)


def test_arms_with_other_arguments_are_not_nested(tmp_path: Path) -> None:
    """A model without dropout is not that of the other arm if it has other layers."""
    small = ("arms=[batchnorm,both]", "study.n_trials=1", "confirm.top_k=1", f"output_dir={tmp_path}")
    arms = all_zero(*LIGHT, *small, "+arm_args.both.hidden=[8]").arms
    winners = {name: arm.winner for name, arm in arms.items() if arm.winner}
    assert {name: winner.owner for name, winner in winners.items()} == {"batchnorm": "", "both": ""}


def test_each_arm_leaves_a_model_that_can_be_loaded(folder: Path) -> None:
    from dropsearch.models import Classifier

    for arm in ("none", "dropout", "batchnorm", "both"):
        assert Classifier.load_from_checkpoint(folder / "best" / f"{arm}.ckpt", map_location="cpu")
        assert (folder / "best" / f"{arm}.yaml").exists()


def test_results_by_example_stand_beside_each_winner_and_agree_with_its_score(folder: Path) -> None:
    found = json.loads((folder / "results.json").read_text())
    paths = sorted((folder / "checkpoints").glob("*/*/*.npz"))
    means = {round(sum(read.correct) / len(read.correct), 9) for read in map(ExampleResults.read, paths) if read}
    for arm in found["arms"].values():
        assert {round(acc, 9) for acc in arm["winner"]["test_acc"]} <= means
    assert {c["covers"] for c in found["comparisons"]} <= {"seeds", "seeds and test examples"}


def test_results_by_example_that_are_gone_are_measured_again_and_nothing_changes(folder: Path) -> None:
    before = json.loads((folder / "results.json").read_text())
    for path in (folder / "checkpoints").glob("*/*/*.npz"):
        path.unlink()
    searched(composed(*SETTINGS, f"output_dir={folder}"))
    after = json.loads((folder / "results.json").read_text())
    assert list((folder / "checkpoints").glob("*/*/*.npz"))
    assert after["comparisons"] == before["comparisons"]
    assert {arm["openings"] for arm in after["arms"].values()} == {1}


@pytest.mark.parametrize(
    ("arm_args", "found"),
    [
        ({"dropout": {"width": 32}}, {"dropout": "width=32"}),
        ({"none": {"width": 8}}, {"dropout": "width=16"}),
        ({"dropout": {"width": 16}}, {}),  # what the constructor takes anyway
        ({"batchnorm": {"norm": "batch"}, "both": {"norm": "batch"}}, {}),
        ({"batchnorm": {"norm": "batch"}, "both": {"norm": "batch", "width": 32}}, {"both": "width=32"}),
    ],
)
def test_arguments_that_differ_from_those_of_the_arm_without_dropout(
    arm_args: dict[str, Any], found: dict[str, str]
) -> None:
    modules = object.__new__(TrialModules)
    modules._config = cast(Any, SimpleNamespace(arms=["none", "dropout", "batchnorm", "both"], arm_args=arm_args))
    modules._builder = cast(Any, SimpleNamespace(own={"width": 16, "norm": None}))
    assert modules.own_arguments() == found
