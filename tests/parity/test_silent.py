"""Modules that talk to a logger, a progress bar or a checkpoint callback find one, and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import LearningRateMonitor
from torch import Tensor

from dropsearch.core.errors import InputError
from dropsearch.training.trainers import without_effect
from tests.parity.conftest import losses, plain, trial
from tests.parity.test_rates import Net

RATES = {"drop": 0.0, "model": 0.0}


class Talking(Net):
    """Uses all that a Trainer with its defaults has."""

    def on_fit_start(self) -> None:
        self.logger.log_hyperparams({"width": 16})
        self.logger.experiment.add_graph(self)
        self.loggers[0].log_metrics({"begun": 1.0}, step=0)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.logger.experiment.add_scalar("scalars/loss", loss.detach(), self.global_step)
        self.logger.experiment.log({"steps": self.global_step, "picture": object(), "name": "x"})
        self.logger.experiment.log_metric("run", "tracked", 3.0, step=batch_idx)
        self.logger.experiment.add_histogram("weights", self.first.weight)
        self.trainer.progress_bar_callback.disable()
        return loss

    def on_train_epoch_end(self) -> None:
        assert self.trainer.checkpoint_callback.best_model_path == ""
        self.logger.log_metrics({"lr_by_hand": self.current_epoch / 4, "epoch": 1}, step=self.global_step)
        self.log("norm", 2.0)


def test_what_is_logged_by_hand_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result, _ = trial(Talking, RATES, trainer=lambda: {"callbacks": [LearningRateMonitor("epoch")]})
    assert result.state == "COMPLETE", result.reason
    first, last = (dict(point.logged) for point in result.curve)
    assert first["begun"] == 1.0
    assert (last["steps"], last["tracked"], last["lr-SGD"], last["lr_by_hand"]) == (7.0, 3.0, 0.05, 0.25)
    assert set(last) == {"lr_by_hand", "steps", "tracked", "lr-SGD", "scalars/loss", "norm"}
    assert losses(result) == pytest.approx(plain(lambda: Net(0.0)), rel=1e-12)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "value"), [("devices", 2), ("num_nodes", 2), ("sync_batchnorm", True), ("limit_predict_batches", 3)]
)
def test_arguments_without_effect_are_refused(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"trainer.{name} must be left out"):
        without_effect({name: value})


def test_values_that_say_what_is_done_anyway_are_taken() -> None:
    without_effect({"devices": 1, "num_nodes": 1, "sync_batchnorm": False, "accumulate_grad_batches": 2})
