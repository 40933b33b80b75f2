"""A foreign module that trains alone: what plain Lightning makes of it, and what is measured beside it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import Callback, Trainer

from dropsearch.core.global_state import seeded
from dropsearch.core.records import Monitor, TrialSpec
from dropsearch.datasets.user_data import UserData
from dropsearch.training.adapters.probe import probe
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.sequential import SequentialEngine
from dropsearch.training.trainers import quiet_lightning
from tests.training.conftest import Queue
from tests.user_modules import assortment, data, nets

SPEC = TrialSpec("none", 0, 7, {"head.1": 0.0}, lr=1e-3, weight_decay=0.0)


class Curve(Callback):
    """Notes what a Trainer holds after each epoch."""

    def __init__(self) -> None:
        self.points: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.points.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def make(spec: TrialSpec) -> Any:
    with seeded(spec.seed):
        return nets.Scored()


class Backbone(assortment.Backbone):
    """Drops in the part in eval mode alone, if anywhere."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(F.relu(self.first(self.features(x))))


def make_backbone(spec: TrialSpec) -> Any:
    with seeded(spec.seed):
        return Backbone()


def trained(monitor: Monitor, make: Any = make, phase: str = "search", **more: Any) -> Any:
    settings = TrainerSettings(3, "cpu", monitor=monitor, **more)
    feed = Queue([dataclasses.replace(SPEC, phase=phase)])
    SequentialEngine(make, UserData(data.Digits(), "Digits"), settings).run(feed)
    return feed.results[0]


def test_the_curve_is_that_of_plain_lightning_whatever_is_measured_beside_it():
    result = trained(Monitor("valid/loss"))
    module = make(SPEC)
    module.head[1].p = 0.0
    assert [dict(point.logged) for point in result.curve] == [pytest.approx(point) for point in plain_lightning(module)]


def test_a_part_in_eval_mode_stays_there_as_in_plain_lightning():
    result = trained(Monitor("val_loss"), make_backbone)
    assert [point.val_loss for point in result.curve] == [
        pytest.approx(point["val_loss"]) for point in plain_lightning(make_backbone(SPEC))
    ]


def plain_lightning(module: Any) -> list[dict[str, float]]:
    curve = Curve()
    with quiet_lightning(), seeded(SPEC.seed):
        trainer = Trainer(
            max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, callbacks=[curve],
        )  # fmt: skip
        trainer.fit(module, **UserData(data.Digits(), "Digits").for_trainer(SPEC.seed))
    return curve.points


def test_a_loss_by_another_name_has_its_curves_on_validation_and_training():
    point = trained(Monitor("valid/loss")).curve[-1]
    assert point.val_loss == point.monitored == point.logged["valid/loss"]
    assert 0 < point.train_loss < 10
    assert point.train_loss_as_trained > 0


def test_the_more_is_minimised_as_its_negative():
    result = trained(Monitor("valid/f1", "max"))
    assert [point.objective for point in result.curve] == [-point.logged["valid/f1"] for point in result.curve]
    assert result.best is not None
    assert result.best.logged["valid/f1"] == max(point.logged["valid/f1"] for point in result.curve)


def test_the_user_s_arguments_of_the_trainer_come_with_each_trial():
    curves: list[Curve] = []

    def arguments() -> dict[str, Any]:
        curves.append(Curve())
        return {"callbacks": [curves[-1]], "limit_train_batches": 1}

    trained(Monitor("valid/loss"), trainer=arguments)
    assert [len(curve.points) for curve in curves] == [3]


class Masked(nets.LitNet):
    """Notes the mask of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[torch.Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.masks.append(F.dropout(torch.ones(64), 0.5, self.training) > 0)
        return super().training_step(batch, batch_idx)


def masks(**arguments: Any) -> list[torch.Tensor]:
    module, rates = Masked(), {"model": 0.5, "model#1": 0.3, "drop": 0.5}
    feed = Queue([dataclasses.replace(SPEC, arm="dropout", rates=rates)])
    settings = TrainerSettings(4, "cpu", trainer=lambda: arguments)
    SequentialEngine(lambda _: module, UserData(data.Digits(), "Digits"), settings).run(feed)
    assert feed.results[0].state == "COMPLETE", feed.results[0].reason
    return module.masks


def test_each_step_has_its_own_mask_with_accumulated_gradients():
    plain, accumulated = masks(), masks(accumulate_grad_batches=4)
    assert len(plain) == len({tuple(mask.tolist()) for mask in accumulated}) == 12
    assert all(torch.equal(one, other) for one, other in zip(plain, accumulated, strict=True))


def test_a_hook_on_batches_is_heard():
    feed = Queue([TrialSpec("none", 0, 7, {"model": 0.0, "drop": 0.0}, lr=1e-3, weight_decay=0.0)])
    settings = TrainerSettings(1, "cpu")

    def plain(spec: TrialSpec) -> Any:
        with seeded(spec.seed):
            return nets.LitNet()

    losses = []
    for module in (data.Digits(), data.Moving()):
        feed = Queue(list(feed.specs))
        SequentialEngine(plain, UserData(module, "Digits"), settings).run(feed)
        assert feed.results[0].state == "COMPLETE", feed.results[0].reason
        losses.append(feed.results[0].curve[0].val_loss)
    assert losses[0] != losses[1]


def test_one_batch_shows_sites_optimisers_and_what_is_logged():
    source = UserData(data.Digits(), "Digits")
    found = probe(make(SPEC), source.for_trainer(0), TrainerSettings(3, "cpu"))
    assert [site.name for site in found.sites] == ["head.1"]
    assert len(found.optimizers) == 1
    assert set(found.logged) == {"valid/f1", "valid/loss"}


class Late(nets.Scored):
    """Draws from its second epoch on."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)["loss"]
        return loss * torch.rand(()) if self.current_epoch else loss


def make_late(spec: TrialSpec) -> Any:
    with seeded(spec.seed):
        return Late()


@dataclasses.dataclass
class Reports(Queue):
    """A feed that records the epochs that are reported to it."""

    epochs: list[int] = dataclasses.field(default_factory=list)

    def report(self, reports: Any) -> list[bool]:
        self.epochs += [metrics.epoch for _, metrics in reports]
        return super().report(reports)


def test_a_trial_that_draws_late_is_trained_again_and_reported_once():
    settings = TrainerSettings(3, "cpu", monitor=Monitor("valid/loss"))
    feed = Reports([SPEC, dataclasses.replace(SPEC, number=1)])
    SequentialEngine(make_late, UserData(data.Digits(), "Digits"), settings).run(feed)
    first, second = feed.results.values()  # the second has a function mode from its first step on
    assert first.state == "COMPLETE", first.reason
    assert first.curve == second.curve
    assert feed.epochs == [0, 1, 2] * 2


class Dropping(Callback):
    """Drops in a hook, by a function that is no Python."""

    def __init__(self) -> None:
        self.left: list[float] = []

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.left.append(float(torch.dropout(torch.ones(50), 0.5, True).count_nonzero()))


def test_hooks_of_module_and_callbacks_drop_at_the_rates_of_the_trial():
    callback, left = Dropping(), []

    class Hooking(nets.Scored):
        def on_train_start(self) -> None:
            left.append(float(torch.dropout(torch.ones(50), 0.5, True).count_nonzero()))

    result = trained(Monitor("valid/loss"), lambda _: Hooking(), trainer=lambda: {"callbacks": [callback]})
    assert result.state == "COMPLETE", result.reason
    assert callback.left == [50.0] * 3
    assert left == [50.0]


class Noting(Callback):
    """Notes what a trial's Trainer and callbacks meet."""

    def __init__(self) -> None:
        self.met: list[str] = []

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self.met.append("validation")

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.met.append(f"{trainer.lightning_module is pl_module} {len(trainer.optimizers)} {trainer.training}")


def test_what_is_measured_beside_a_trial_is_met_by_nobody():
    callback = Noting()

    class Asking(nets.Scored):
        def on_validation_epoch_end(self) -> None:
            if not self.trainer.optimizers:  # on the training part
                self.log("valid/loss", 5.0)
                self.trainer.should_stop = True
                self.outputs.append(torch.zeros(()))
            else:
                super().on_validation_epoch_end()

    result = trained(Monitor("valid/loss"), lambda _: Asking(), "confirm", trainer=lambda: {"callbacks": [callback]})
    assert [point.train_loss for point in result.curve] == [5.0] * 3
    assert callback.met == ["True 1 True", "validation"] * 3
