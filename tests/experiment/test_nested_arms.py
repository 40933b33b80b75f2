"""Arms that choose the same model are the same, everywhere that a run shows them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dropsearch.experiment.runner import searched
from tests.experiment.conftest import LIGHT, composed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which every rate that is found rounds to zero: the range ends at next to nothing."""
    out = tmp_path_factory.mktemp("nested") / "out"
    config = composed(*LIGHT, "space.zero_share=0.9", "confirm.seeds=3", "evidence=off", f"output_dir={out}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "dropsearch.study.search_space.Space.first_points", property(lambda self: (self._zero_point(),) * 3)
        )
        searched(config)
    return out


def test_an_arm_that_chose_no_dropout_is_the_arm_without(folder: Path) -> None:
    found = json.loads((folder / "results.json").read_text())
    for on, off in (("dropout", "none"), ("both", "batchnorm")):
        one, other = found["arms"][on]["winner"], found["arms"][off]["winner"]
        assert not any(one["rates"].values())
        for key in ("judged", "test_loss", "mean_val_loss", "seeds"):
            assert one[key] == other[key]
        (contrast,) = [c for c in found["comparisons"] if {c["a"], c["b"]} == {on, off}]
        assert (contrast["difference"], contrast["p"], contrast["shown"]) == (0.0, 1.0, False)


def test_each_arm_leaves_a_model_that_can_be_loaded(folder: Path) -> None:
    from dropsearch.models import Classifier

    for arm in ("none", "dropout", "batchnorm", "both"):
        assert Classifier.load_from_checkpoint(folder / "best" / f"{arm}.ckpt", map_location="cpu")
        assert (folder / "best" / f"{arm}.yaml").exists()
