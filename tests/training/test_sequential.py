"""Trials alone: what goes in, what comes back, and what a failure becomes."""

from __future__ import annotations

import math

import pytest
import torch

from dropsearch.core.records import Monitor, TrialSpec
from dropsearch.dropout.trial_control import TrialControl
from dropsearch.models import Classifier
from dropsearch.training.controlled_trial import controlled_hooks
from dropsearch.training.epoch_metrics import missing_monitor
from dropsearch.training.logged_steps import captured_logs, evaluate
from dropsearch.training.protocols import INTERRUPTED, TrainerSettings
from dropsearch.training.sequential import SequentialEngine
from tests.training.conftest import Queue, make_factory, make_source, make_specs
from tests.user_modules.package_style import BuiltInHooks


def engine(epochs: int = 3, **options: object) -> SequentialEngine:
    return SequentialEngine(make_factory("mlp", **options), make_source("mlp"), TrainerSettings(epochs, "cpu"))  # type: ignore[arg-type]


def run(trainer: SequentialEngine, feed: Queue) -> Queue:
    trainer.run(feed)
    return feed


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-true", "bf16-mixed"])
def test_every_precision_trains(precision: str) -> None:
    trainer = SequentialEngine(make_factory("mlp", "batch"), make_source("mlp"), TrainerSettings(2, "cpu", precision))
    result = run(trainer, Queue(make_specs("mlp", 1))).results[0]
    assert (result.state, result.reason) == ("COMPLETE", "")
    assert math.isfinite(result.curve[-1].train_loss)


def test_a_trial_gives_the_same_curve_again() -> None:
    first, second = (run(engine(), Queue(make_specs("mlp", 2))).results for _ in range(2))
    assert first[1].curve == second[1].curve


def test_a_module_that_is_handed_over_in_eval_mode_still_drops() -> None:
    factory = make_factory("mlp")
    spec = make_specs("mlp", 2)[1]
    sleeping = SequentialEngine(lambda s: factory(s).eval(), make_source("mlp"), TrainerSettings(2, "cpu"))
    assert run(sleeping, Queue([spec])).results[1].curve == run(engine(2), Queue([spec])).results[1].curve


def test_both_losses_are_taken_with_dropout_off(tmp_path) -> None:
    source = make_source("mlp")
    path = tmp_path / "best.ckpt"
    trainer = SequentialEngine(make_factory("mlp"), source, TrainerSettings(1, "cpu"), lambda _: path)
    spec = TrialSpec("dropout", 0, 3, dict.fromkeys(make_specs("mlp", 1)[0].rates, 0.5), 3e-3, 0.0)
    (point,) = run(trainer, Queue([spec])).results[0].curve
    module = Classifier.load_from_checkpoint(path).eval()
    with torch.no_grad():
        x, y = source.train_part_loader().tensors
        by_hand = torch.nn.functional.cross_entropy(module(x), y)
    assert point.train_loss == pytest.approx(float(by_hand), abs=1e-6)
    assert point.train_loss != pytest.approx(point.train_loss_as_trained, abs=1e-3)


def test_an_exception_in_a_module_fails_the_trial_and_the_next_one_trains() -> None:
    factory = make_factory("mlp")

    def make(spec: TrialSpec) -> Classifier:
        if spec.number == 0:
            raise RuntimeError("broken\nin two lines")
        return factory(spec)

    trainer = SequentialEngine(make, make_source("mlp"), TrainerSettings(2, "cpu"))
    results = run(trainer, Queue(make_specs("mlp", 2))).results
    assert results[0].state == "FAIL"
    assert results[0].reason.startswith("RuntimeError: broken in two lines (test_sequential.py:")
    assert results[1].state == "COMPLETE"


def test_a_trial_that_diverges_fails_with_what_it_came_to() -> None:
    spec = TrialSpec("none", 0, 3, {}, lr=1e30, weight_decay=0.0)
    result = run(engine(optimizer="sgd"), Queue([spec])).results[0]
    assert result.state == "FAIL"
    assert result.reason.startswith("diverged: val_loss=")


def test_cancelling_in_the_middle_of_an_epoch_tells_the_trial_as_interrupted() -> None:
    class Stopping(Queue):
        calls = 0

        def cancelled(self) -> bool:
            self.calls += 1
            return self.calls > 3

    feed = run(engine(50), Stopping(make_specs("mlp", 3)))
    assert [(r.state, r.reason) for r in feed.results.values()] == [("FAIL", INTERRUPTED)]


def test_evaluating_leaves_a_module_as_it_was() -> None:
    module = make_factory("mlp", "batch")(make_specs("mlp", 1)[0]).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    evaluate(module, make_source("mlp").val_dataloader())
    assert module.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert "log" not in vars(module)


def test_logs_are_captured_by_name_and_the_module_logs_as_before_afterwards() -> None:
    module = make_factory("mlp")(make_specs("mlp", 1)[0])
    batch = next(iter(make_source("mlp").val_dataloader()))
    with captured_logs(module) as logged:
        module.validation_step(batch)
    assert set(logged) == {"val_loss", "val_acc"}
    assert module.log.__func__ is Classifier.log


def test_a_metric_of_several_loaders_is_named_by_loader() -> None:
    logged = {"val_loss/dataloader_idx_0": 1.0, "val_loss/dataloader_idx_1": 1.0}
    told = missing_monitor(Monitor(), logged, {"val_loss": "validation_step logs per step only"})
    assert told.endswith("set monitor=val_loss/dataloader_idx_0 or val_loss/dataloader_idx_1")


def test_layers_of_configure_model_are_drawn_on_the_cpu_on_any_device() -> None:
    module = BuiltInHooks()
    module.first = torch.nn.Linear(64, 12)
    with controlled_hooks(TrialControl(module, {}, 0), module), torch.device("meta"):
        module.configure_model()
    assert module.last.weight.device.type == "cpu"
