from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dropsearch
from tests.tracking.tracked_studies import make_summary

Begin = Callable[..., Any]


class Recurrent(nn.Module):
    """Reads sequences [batch, steps, features] up to their lengths [batch]."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(3, 5, batch_first=True)
        self.dropout = nn.Dropout(0.5)
        self.output = nn.Linear(5, 2)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        steps, _ = self.rnn(x)
        last = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, steps.shape[2])
        return self.output(self.dropout(steps.gather(1, last).squeeze(1)))


class AnyNumber(nn.Module):
    """Takes its inputs as a LightningModule around any network does."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.network(*inputs)


class Stubborn(nn.Module):
    """Cannot be traced, for its way depends on the numbers."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.sum().item() > 0 else -x.flatten(1)


@pytest.fixture
def perceptron() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 10)
    return nn.Sequential(*layers).eval()


@pytest.fixture
def recurrent() -> nn.Module:
    torch.manual_seed(0)
    return Recurrent().eval()


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 1, 8, 8)).astype(np.float32)


def sequences(lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(len(lengths), 7, 3)).astype(np.float32)
    x[np.arange(7) >= np.array(lengths)[:, None]] = 0
    return x, np.array(lengths)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that loads the winner of a tracker's run as a user would."""
    import mlflow

    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")

    def load(tracker: Any, flavour: str = "pyfunc") -> Any:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.info["tracking_uri"])
        return getattr(mlflow, flavour).load_model(f"runs:/{tracker.info['run_id']}/model")

    return load


def log(tracker: Any, module: nn.Module) -> None:
    """Log a module for images as the winner of a run that ends well."""
    tracker.log_model(lambda: module, images(8), {})
    tracker.finish(make_summary(), [])
    assert tracker.problems == []


def check_predictions(loaded: Any, module: nn.Module) -> None:
    expected = module(torch.from_numpy(images(5))).detach().numpy()
    np.testing.assert_allclose(loaded.predict(images(5)), expected, atol=1e-6)


def test_the_loaded_winner_predicts_what_the_module_does(begin: Begin, load: Any, perceptron: nn.Module):
    tracker = begin()
    log(tracker, perceptron)
    check_predictions(load(tracker), perceptron)


def test_a_module_may_take_its_inputs_by_a_star(begin: Begin, load: Any, perceptron: nn.Module):
    tracker = begin()
    log(tracker, AnyNumber(perceptron).eval())
    check_predictions(load(tracker), perceptron)


def test_a_dropout_that_was_inserted_is_off_in_the_logged_model(begin: Begin, load: Any, perceptron: nn.Module):
    expected = perceptron(torch.from_numpy(images(5))).detach().numpy()
    dropsearch.insert_dropout(perceptron, "1", rate=0.5)
    tracker = begin()
    log(tracker, perceptron)
    np.testing.assert_allclose(load(tracker).predict(images(5)), expected, atol=1e-6)


@pytest.mark.parametrize(("kept", "elsewhere"), [(lambda x: x, True), (Lock(), False)], ids=["function", "lock"])
def test_a_module_is_exported_in_the_process_of_mlflow_if_it_can_be_pickled(
    begin: Begin, load: Any, perceptron: nn.Module, monkeypatch: pytest.MonkeyPatch, kept: Any, elsewhere: bool
):
    from dropsearch.tracking.mlflow.worker import MlflowWorker

    sent: list[str] = []
    perceptron.kept = kept
    tracker = begin()
    call = MlflowWorker.call
    monkeypatch.setattr(MlflowWorker, "call", lambda self, name, *given: sent.append(name) or call(self, name, *given))
    log(tracker, perceptron)
    check_predictions(load(tracker), perceptron)
    assert ("log_model" in sent) is elsewhere


def test_the_winner_takes_batches_of_any_size_after_an_example_of_one(begin: Begin, load: Any, perceptron: nn.Module):
    tracker = begin()
    tracker.log_model(lambda: perceptron, images(1), {})
    tracker.finish(make_summary(), [])
    assert load(tracker).predict(images(9)).shape == (9, 10)


def test_a_model_of_sequences_finds_their_lengths_in_the_padding(begin: Begin, load: Any, recurrent: nn.Module):
    tracker = begin()
    tracker.log_model(lambda: recurrent, sequences([7, 2, 3]), {})
    tracker.finish(make_summary(), [])
    assert tracker.problems == []
    x, lengths = sequences([1, 6, 7, 3, 4])
    expected = recurrent(torch.from_numpy(x), torch.from_numpy(lengths)).detach().numpy()
    np.testing.assert_allclose(load(tracker).predict(x), expected, atol=1e-6)


def test_a_model_whose_padding_is_not_zero_keeps_both_inputs(begin: Begin, load: Any, recurrent: nn.Module):
    x, lengths = sequences([7, 2, 3])
    tracker = begin()
    tracker.log_model(lambda: recurrent, (x + 1, lengths), {})
    tracker.finish(make_summary(), [])
    loaded = load(tracker, "pytorch")
    both = torch.from_numpy(x + 1), torch.from_numpy(lengths)
    torch.testing.assert_close(loaded(*both), recurrent(*both))


def test_the_winner_is_an_output_of_the_parent_with_signature_and_example(begin: Begin, perceptron: nn.Module):
    tracker = begin()
    tracker.log_model(lambda: perceptron, images(8), {})
    tracker.finish(make_summary(), [])
    client = tracker._worker._runs.client
    (output,) = client.get_run(tracker.info["run_id"]).outputs.model_outputs
    logged = client.get_logged_model(output.model_id)
    assert (logged.name, logged.status, logged.source_run_id) == ("model", "READY", tracker.info["run_id"])
    files = {file.path for file in client.list_logged_model_artifacts(output.model_id)}
    assert {"MLmodel", "input_example.json", "requirements.txt"} <= files
    description = Path(client.get_logged_model(output.model_id).artifact_location.removeprefix("file://"))
    assert 'shape": [-1, 1, 8, 8]' in " ".join((description / "MLmodel").read_text().split())


def test_a_model_that_cannot_be_traced_is_a_problem_and_no_error(begin: Begin, find: Any):
    tracker = begin()
    tracker.log_model(Stubborn, images(8), {})
    tracker.finish(make_summary(), [])
    assert len(tracker.problems) == 1
    assert "cannot be logged as an MLflow model" in tracker.problems[0]
    assert find()["first"].info.status == "FINISHED"


def test_without_a_winner_no_model_is_logged(begin: Begin):
    tracker = begin()
    tracker.finish(make_summary(), [])
    run = tracker._worker._runs.client.get_run(tracker.info["run_id"])
    assert not run.outputs or not run.outputs.model_outputs
    assert tracker.problems == []
