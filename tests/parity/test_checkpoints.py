"""A checkpoint holds the weights that were validated, and loads into its class as Lightning loads it."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from torch import nn

from dropsearch.core.global_state import seeded
from dropsearch.core.records import TrialResult, TrialSpec
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.sequential import SequentialEngine
from dropsearch.training.trainers import quiet_lightning
from tests.parity.conftest import SEED, Curve, losses, source
from tests.parity.test_rates import Net
from tests.training.conftest import Queue

SPEC = TrialSpec("dropout", 0, SEED, {"drop": 0.0, "model": 0.0}, lr=0.0, weight_decay=0.0, phase="confirm")


class Worsening(Net):
    """Is best in the middle of its training."""

    def __init__(self, p: float = 0.0) -> None:
        super().__init__(p)

    def on_train_epoch_start(self) -> None:
        for group in self.optimizers().optimizer.param_groups:  # type: ignore[union-attr]
            group["lr"] = (0.05, 0.05, 0.4, 1e-6)[self.current_epoch]


class Averaging(Worsening):
    """Validates weights that it averages itself."""

    def __init__(self, p: float = 0.0) -> None:
        super().__init__(p)
        self.mean: dict[str, Any] = {}

    def on_train_batch_end(self, *_: Any) -> None:
        for name, value in self.state_dict().items():
            self.mean[name] = value if name not in self.mean else 0.7 * self.mean[name] + 0.3 * value

    def on_validation_start(self) -> None:
        self.kept = copy.deepcopy(self.state_dict())
        self.load_state_dict(self.mean or self.kept)

    def on_validation_end(self) -> None:
        self.load_state_dict(self.kept)


class Holding(Worsening):
    """Keeps a network and a partial optimiser among its hyperparameters."""

    def __init__(self, net: nn.Module | None = None, optimizer: Any = None, width: int = 3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = net or nn.Identity()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        assert isinstance(self.hparams.net, nn.Module)
        return super().training_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        return self.hparams.optimizer(self.parameters(), lr=0.05)


def confirmed(make: Any, path: Path, epochs: int = 4, **trainer: Any) -> TrialResult:
    def made(spec: TrialSpec) -> LightningModule:
        with seeded(spec.seed):
            return make()

    callbacks = trainer.pop("callbacks", list)
    settings = TrainerSettings(
        epochs, "cpu", precision="64-true", trainer=lambda: {**trainer, "callbacks": callbacks()}
    )
    feed = Queue([SPEC])
    SequentialEngine(made, source(), settings, lambda _: path).run(feed)
    assert feed.results[0].state == "COMPLETE", feed.results[0].reason
    return feed.results[0]


def validated(module: LightningModule) -> float:
    with quiet_lightning():
        trainer = Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, precision="64-true", enable_model_summary=False
        )
        trainer.validate(module, source().val_dataloader(), verbose=False)  # type: ignore[arg-type]
    return float(trainer.callback_metrics["val_loss"])


CASES = {
    "plain": (Worsening, {}),
    "averaged by a callback": (Worsening, {"callbacks": lambda: [EMAWeightAveraging(decay=0.7)]}),
    "averaged in the end": (Worsening, {"callbacks": lambda: [StochasticWeightAveraging(0.01, swa_epoch_start=2)]}),
    "averaged by the module": (Averaging, {}),
    "validated twice an epoch": (Worsening, {"val_check_interval": 0.5}),
    "validated every other epoch": (Worsening, {"check_val_every_n_epoch": 2}),
    "accumulated": (Worsening, {"accumulate_grad_batches": 3}),
    "clipped": (Worsening, {"gradient_clip_val": 0.01}),
    "limited": (Worsening, {"limit_train_batches": 2, "limit_val_batches": 1}),
    "sanity checked": (Worsening, {"num_sanity_val_steps": 1}),
}


@pytest.mark.parametrize("case", CASES)
def test_curves_are_plain_lightnings_and_the_checkpoint_validates_to_the_best(case: str, tmp_path: Path) -> None:
    make, more = CASES[case]
    curve, given = Curve(), source()
    callbacks = [curve, *more.get("callbacks", list)()]
    with seeded(SEED), quiet_lightning():
        module = make()
        with seeded(SEED):
            trainer = Trainer(
                **{
                    "max_epochs": 4, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
                    "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0,
                    "precision": "64-true", **more, "callbacks": callbacks,
                }
            )  # fmt: skip
            trainer.fit(module, given.train_loader(SEED), given.val_dataloader())  # type: ignore[arg-type]
    result = confirmed(make, tmp_path / "a.ckpt", **more)
    assert losses(result) == pytest.approx(curve.points, rel=1e-12)
    assert result.best is not None
    loaded = make.load_from_checkpoint(tmp_path / "a.ckpt")
    assert validated(loaded) == pytest.approx(result.best.val_loss, rel=1e-12)


@pytest.mark.filterwarnings("ignore:Attribute 'net' is an instance of:UserWarning")
def test_hyperparameters_are_kept_where_they_are_plain_values(tmp_path: Path) -> None:
    make = partial(Holding, net=nn.Tanh(), optimizer=partial(torch.optim.SGD, momentum=0.5), width=5)
    result = confirmed(make, tmp_path / "a.ckpt")
    held = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert held["hyper_parameters"] == {"width": 5}
    loaded = Holding.load_from_checkpoint(tmp_path / "a.ckpt", net=nn.Tanh(), optimizer=None)
    assert loaded.hparams.width == 5
    assert validated(loaded) == pytest.approx(result.best.val_loss, rel=1e-12)  # type: ignore[union-attr]


def test_a_trainer_that_never_validates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must validate at least once"):
        confirmed(Worsening, tmp_path / "a.ckpt", check_val_every_n_epoch=9)
