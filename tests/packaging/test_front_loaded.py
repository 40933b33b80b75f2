"""What `scripts/reproduce/front_loaded` trains, and that it trains nothing twice."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from dropsearch import dropout_sites

FOLDER = Path(__file__).resolve().parents[2] / "scripts" / "reproduce"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Import a file of the script's folder by name, and forget it after the test."""
    monkeypatch.syspath_prepend(str(FOLDER))
    known = {*sys.modules}
    yield importlib.import_module
    for name in {*sys.modules} - known:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(f"{FOLDER}/"):
            del sys.modules[name]


def test_network_is_the_published_one(script: Callable[[str], Any]) -> None:
    torch.manual_seed(0)
    module = script("deep_mlp").DeepMLP()
    sites = dropout_sites(module, (torch.randn(4, 3072), torch.arange(4)))
    assert [site.name for site in sites] == [f"layers.dropout{number}" for number in range(1, 7)]
    layers = [layer for layer in module.layers if isinstance(layer, torch.nn.Linear)]
    assert [layer.in_features for layer in layers] == [3072, *[256] * 6]
    assert [layer.out_features for layer in layers] == [*[256] * 6, 10]
    for layer in layers[:-1]:
        assert float(layer.weight.detach().var()) == pytest.approx(1.98 / layer.in_features, rel=0.03)
    biases = torch.cat([layer.bias.detach() for layer in layers])
    assert float(biases.var()) == pytest.approx(0.02, rel=0.15)


def test_published_arms(script: Callable[[str], Any]) -> None:
    schedule, arms = script("front_loaded_runs").schedule, script("front_loaded_published").ARMS
    rates = {arm: schedule(*shape) for arm, shape in arms.items()}
    assert rates["none"] == (0.0,) * 6
    assert rates["first third .3"] == (0.3, 0.3, 0.0, 0.0, 0.0, 0.0)
    assert rates["early half .2"] == rates["late half .2"][::-1]
    same = ("constant .1", "late half .2", "early half .2", "first third .3")
    assert [fmean(rates[arm]) for arm in same] == pytest.approx([0.1] * 4)


def test_kept_runs_are_not_trained_again(script: Callable[[str], Any], tmp_path: Path) -> None:
    runs = script("front_loaded_runs").Runs(tmp_path, "nowhere", 2, 500, 6, [])
    curves = {name: [2.0, 1.5] for name in ("val_loss", "val_acc", "test_loss", "test_acc")}
    lines = [json.dumps({"rates": [rate] * 6, "seed": 7, **curves}) for rate in (0.0, 0.2)]
    runs.path.write_text("\n".join(lines) + "\n")
    found = runs.train([((0.2,) * 6, 7), ((0.0,) * 6, 7), ((0.2,) * 6, 7)])  # "nowhere" has no data to train on
    assert [run.rates[0] for run in found] == [0.2, 0.0]
    assert found[0].chosen == 1


@pytest.mark.parametrize(
    ("rates", "shown"), [((0.5, 0.3, 0.2, 0.1, 0.05, 0.0), "-1.00"), ((0.0, 0.1), "+1.00"), ((0.2, 0.2), "all equal")]
)
def test_correlation_with_depth(script: Callable[[str], Any], rates: tuple[float, ...], shown: str) -> None:
    assert script("front_loaded").falling(rates) == shown
