"""Vectorized training on a CUDA device. Run with `pytest -m gpu`."""

from __future__ import annotations

import pytest
import torch

from dropsearch.core.global_state import seeded
from dropsearch.core.records import TrialSpec
from dropsearch.datasets.data_module import TensorDataModule
from dropsearch.dropout.trial_control import TrialControl
from dropsearch.models import MLP, Classifier
from dropsearch.training.planning.equivalence import check_equivalence
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.sequential import SequentialEngine
from dropsearch.training.vectorized.cuda_graph import GraphedCallable
from dropsearch.training.vectorized.engine import VectorizedEngine
from tests.training.conftest import Queue, Source, make_factory, make_source, make_specs

pytestmark = pytest.mark.gpu


def on_gpu(source: Source) -> Source:
    return Source(tuple(t.cuda() for t in source.train), tuple(t.cuda() for t in source.val), source.batch_size)


@pytest.mark.parametrize("model", ["mlp", "cnn", "rnn", "transformer"])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_vectorized_equals_sequential(model: str, norm: str) -> None:
    factory, source = make_factory(model, norm, torch.float64), on_gpu(make_source(model, torch.float64))
    settings, specs = TrainerSettings(4, "gpu", "64-true"), make_specs(model, 4)
    sequential, vectorized = Queue(list(specs)), Queue(list(specs))
    SequentialEngine(factory, source, settings).run(sequential)
    VectorizedEngine(factory, source, settings, 3).run(vectorized)
    for number, result in sequential.results.items():
        ours = [point.val_loss for point in vectorized.results[number].curve]
        assert ours == pytest.approx([point.val_loss for point in result.curve], abs=1e-9)


def test_equivalence_check_with_data_on_gpu() -> None:
    first, second = make_specs("mlp", 2)
    settings = TrainerSettings(2, "gpu")
    assert check_equivalence(make_factory("mlp", "batch"), on_gpu(make_source("mlp")), settings, (first, second)) == ""


def test_masks_are_equal_on_cpu_and_gpu() -> None:
    outputs = []
    for device in ("cpu", "cuda"):
        model = torch.nn.Sequential(torch.nn.Dropout(0.5))
        control = TrialControl(model, {"0": 0.4}, seed=1)
        with control.watching(), control.training_step(3):
            outputs.append(model(torch.ones(50, 50, device=device)).cpu())
    assert torch.equal(*outputs)


@pytest.mark.parametrize("model", ["mlp", "cnn", "rnn", "transformer"])
def test_cuda_graph_equals_ordinary_steps(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[GraphedCallable] = []
    capture = GraphedCallable._capture

    def capture_and_store(self: GraphedCallable) -> None:
        capture(self)
        graphs.append(self)

    monkeypatch.setattr(GraphedCallable, "_capture", capture_and_store)
    specs = make_specs(model, 5)
    settings, source = TrainerSettings(4, "gpu", "64-true"), on_gpu(make_source(model, torch.float64))
    factory = make_factory(model, "batch" if model == "cnn" else "none", torch.float64)
    with_graphs = Queue(list(specs))
    VectorizedEngine(factory, source, settings, 2).run(with_graphs)
    assert {graph.name for graph in graphs} == {"training step", "evaluation"}
    assert not any(graph.capture_error for graph in graphs)
    monkeypatch.setattr("dropsearch.training.vectorized.trial_stack.uses_cuda_graphs", lambda _: False)
    without_graphs = Queue(list(specs))
    VectorizedEngine(factory, source, settings, 2).run(without_graphs)
    for number, result in without_graphs.results.items():
        ours = [point.val_loss for point in with_graphs.results[number].curve]
        assert ours == pytest.approx([point.val_loss for point in result.curve], abs=1e-9)


def test_failed_capture_runs_without_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    factory = make_factory("mlp")

    class Synchronizing(Classifier):
        def training_step(self, batch, batch_idx):  # type: ignore[no-untyped-def]
            torch.cuda.synchronize()
            return super().training_step(batch, batch_idx)

    def make(spec):  # type: ignore[no-untyped-def]
        return Synchronizing(factory(spec).net, lr=spec.lr, weight_decay=spec.weight_decay)

    errors: list[str] = []
    capture = GraphedCallable._capture

    def capture_and_store(self: GraphedCallable) -> None:
        capture(self)
        if self.name == "training step":
            errors.append(self.capture_error)

    monkeypatch.setattr(GraphedCallable, "_capture", capture_and_store)
    feed = Queue(make_specs("mlp", 3))
    VectorizedEngine(make, on_gpu(make_source("mlp")), TrainerSettings(2, "gpu"), 2).run(feed)
    assert {result.state for result in feed.results.values()} == {"COMPLETE"}
    assert errors
    assert all(errors), "the step was captured"


def test_retrainings_have_their_own_splits() -> None:
    source = TensorDataModule("digits", train_size=96, batch_size=32, val_fraction=0.4).to("cuda")
    net = lambda: MLP((1, 8, 8), classes=10, hidden=[12], dropout={"hidden1.dropout": 0.3})  # noqa: E731
    rates = {"net.hidden1.dropout": 0.3}
    specs = [TrialSpec("dropout", n, 50 + n, rates, lr=2e-3, weight_decay=0.0, phase="confirm") for n in range(5)]

    def make(spec: TrialSpec) -> Classifier:
        with seeded(spec.seed):
            return Classifier(net(), lr=spec.lr)

    settings, alone, together = TrainerSettings(4, "gpu"), Queue(list(specs)), Queue(list(specs))
    SequentialEngine(make, source, settings).run(alone)
    VectorizedEngine(make, source, settings, 2).run(together)
    for number, result in alone.results.items():
        ours = [point.val_loss for point in together.results[number].curve]
        assert ours == pytest.approx([point.val_loss for point in result.curve], rel=1e-3)
