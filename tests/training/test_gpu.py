"""The same laws on a CUDA device: run with `pytest -m gpu` where there is one."""

from __future__ import annotations

import pytest
import torch

from dropsearch.dropout.control import TrialControl
from dropsearch.training.alone import AloneEngine
from dropsearch.training.array_engine import ArrayEngine
from dropsearch.training.feed import TrainerSettings
from dropsearch.training.proof import proof

from .conftest import Queue, Source, make_factory, make_source, make_specs

pytestmark = pytest.mark.gpu


def on_gpu(source: Source) -> Source:
    return Source(tuple(t.cuda() for t in source.train), tuple(t.cuda() for t in source.val), source.batch_size)


@pytest.mark.parametrize("model", ["mlp", "cnn", "rnn", "transformer"])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_an_array_on_the_gpu_gives_what_trials_alone_give_there(model: str, norm: str) -> None:
    factory, source = make_factory(model, norm, torch.float64), on_gpu(make_source(model, torch.float64))
    settings, specs = TrainerSettings(4, "gpu", "64-true"), make_specs(model, 4)
    alone, array = Queue(list(specs)), Queue(list(specs))
    AloneEngine(factory, source, settings).run(alone)
    ArrayEngine(factory, source, settings, 3).run(array)
    for number, result in alone.results.items():
        ours = [point.val_loss for point in array.results[number].curve]
        assert ours == pytest.approx([point.val_loss for point in result.curve], abs=1e-9)


def test_the_proof_holds_for_data_that_lies_on_the_gpu() -> None:
    first, second = make_specs("mlp", 2)
    settings = TrainerSettings(2, "gpu")
    assert proof(make_factory("mlp", "batch"), on_gpu(make_source("mlp")), settings, (first, second)) == ""


def test_masks_are_the_same_on_the_cpu_and_on_the_gpu() -> None:
    outputs = []
    for device in ("cpu", "cuda"):
        model = torch.nn.Sequential(torch.nn.Dropout(0.5))
        control = TrialControl(model, {"0": 0.4}, seed=1)
        with control.watching(), control.training_step(3):
            outputs.append(model(torch.ones(50, 50, device=device)).cpu())
    assert torch.equal(*outputs)
