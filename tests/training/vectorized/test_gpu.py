"""The same laws on a CUDA device: run with `pytest -m gpu` where there is one."""

from __future__ import annotations

import pytest
import torch

from dropsearch.dropout.control import TrialControl
from dropsearch.models import Classifier
from dropsearch.training.planning.equivalence import proof
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.sequential import SequentialEngine
from dropsearch.training.vectorized.cuda_graph import Recorded
from dropsearch.training.vectorized.engine import VectorizedEngine
from tests.training.conftest import Queue, Source, make_factory, make_source, make_specs

pytestmark = pytest.mark.gpu


def on_gpu(source: Source) -> Source:
    return Source(tuple(t.cuda() for t in source.train), tuple(t.cuda() for t in source.val), source.batch_size)


@pytest.mark.parametrize("model", ["mlp", "cnn", "rnn", "transformer"])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_an_array_on_the_gpu_gives_what_trials_alone_give_there(model: str, norm: str) -> None:
    factory, source = make_factory(model, norm, torch.float64), on_gpu(make_source(model, torch.float64))
    settings, specs = TrainerSettings(4, "gpu", "64-true"), make_specs(model, 4)
    alone, array = Queue(list(specs)), Queue(list(specs))
    SequentialEngine(factory, source, settings).run(alone)
    VectorizedEngine(factory, source, settings, 3).run(array)
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


@pytest.mark.parametrize("model", ["mlp", "cnn", "rnn", "transformer"])
def test_a_step_is_recorded_and_played_back(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[Recorded] = []
    record = Recorded._record

    def noting(self: Recorded) -> None:
        record(self)
        recorded.append(self)

    monkeypatch.setattr(Recorded, "_record", noting)
    specs = make_specs(model, 5)
    settings, source = TrainerSettings(4, "gpu", "64-true"), on_gpu(make_source(model, torch.float64))
    factory = make_factory(model, "batch" if model == "cnn" else "none", torch.float64)
    played = Queue(list(specs))
    VectorizedEngine(factory, source, settings, 2).run(played)
    assert {work.name for work in recorded} == {"training step", "evaluation"}
    assert not any(work.problem for work in recorded)
    monkeypatch.setattr("dropsearch.training.vectorized.trials.records", lambda _: False)
    launched = Queue(list(specs))
    VectorizedEngine(factory, source, settings, 2).run(launched)
    for number, result in launched.results.items():
        ours = [point.val_loss for point in played.results[number].curve]
        assert ours == pytest.approx([point.val_loss for point in result.curve], abs=1e-9)


def test_a_module_that_asks_the_host_trains_unrecorded(monkeypatch: pytest.MonkeyPatch) -> None:
    factory = make_factory("mlp")

    class Asking(Classifier):
        def training_step(self, batch, batch_idx):  # type: ignore[no-untyped-def]
            torch.cuda.synchronize()
            return super().training_step(batch, batch_idx)

    def make(spec):  # type: ignore[no-untyped-def]
        return Asking(factory(spec).net, lr=spec.lr, weight_decay=spec.weight_decay)

    noted: list[str] = []
    record = Recorded._record

    def noting(self: Recorded) -> None:
        record(self)
        if self.name == "training step":
            noted.append(self.problem)

    monkeypatch.setattr(Recorded, "_record", noting)
    feed = Queue(make_specs("mlp", 3))
    VectorizedEngine(make, on_gpu(make_source("mlp")), TrainerSettings(2, "gpu"), 2).run(feed)
    assert {result.state for result in feed.results.values()} == {"COMPLETE"}
    assert noted
    assert all(noted), "it was recorded"
