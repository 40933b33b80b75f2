"""Confirmation in a run: all configurations on the first seeds, the best of each arm on all."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from dropsearch.core.records import TrialResult
from dropsearch.core.seeds import confirmation_seeds
from dropsearch.experiment.tasks import run
from tests.experiment.conftest import LIGHT, composed, trials_told

SMALL = (*LIGHT, "arms=[none,batchnorm]", "evidence=off", "confirm.screening_seeds=1", "trainer.max_epochs=1")


def retrained(trained: list[TrialResult]) -> dict[str, list[int]]:
    """Return how often each configuration of each arm was retrained, in descending order."""
    counts = Counter((r.spec.arm, r.spec.configuration) for r in trained if r.spec.phase == "confirm")
    arms = sorted({arm for arm, _ in counts})
    return {arm: sorted((n for (own, _), n in counts.items() if own == arm), reverse=True) for arm in arms}


def test_only_finalists_are_retrained_on_all_seeds_and_a_continued_run_extends_them(tmp_path: Path):
    settings = (*SMALL, f"output_dir={tmp_path / 'out'}")
    with trials_told() as first:
        assert run(composed(*settings, "confirm.seeds=3")) == 0
    assert retrained(first) == {"batchnorm": [3, 1], "none": [3, 1]}

    found = json.loads((tmp_path / "out" / "results.json").read_text())["arms"]
    for arm in ("none", "batchnorm"):
        screened = {each["number"]: each["val_loss"][0] for each in found[arm]["confirmed"]}
        assert found[arm]["winner"]["number"] == min(screened, key=lambda number: screened[number])
        assert found[arm]["winner"]["seeds"] == list(confirmation_seeds(0, 3))

    with trials_told() as again:
        assert run(composed(*settings, "confirm.seeds=4")) == 0
    assert retrained(again) == {"batchnorm": [1], "none": [1]}
    assert "The test set was opened more than once (2 times for each arm)" in warned(tmp_path)

    assert run(composed(*settings, "confirm.seeds=4", "arms=[none,batchnorm,dropout]")) == 0
    assert "opened for dropout after a run had shown the results of plain and BatchNorm: " in warned(tmp_path)


def warned(folder: Path) -> str:
    """Return the warnings of the first screen."""
    return " ".join(json.loads((folder / "out" / "results.json").read_text())["warnings"])
