"""Reasons reason a user module cannot be trained vectorized."""

from __future__ import annotations

import re

import pytest
import torch
from lightning import Trainer

from dropsearch.core.records import Monitor, TrialSpec
from dropsearch.datasets.user_data import UserData
from dropsearch.training.planning.compatibility import incompatibilities, remedy
from dropsearch.training.trainers import quiet_lightning
from tests.user_modules import data, nets, specimens

SPEC = TrialSpec("dropout", 0, 3, {}, lr=1e-3, weight_decay=0.0)


def check(cls: type, monitor: str = "val_loss") -> list[str]:
    with quiet_lightning():
        trainer = Trainer(max_epochs=2, accelerator="cpu", barebones=True)
    rows = UserData(data.Digits(), "Digits").in_rows()
    return list(incompatibilities(lambda spec: cls(), rows, SPEC, Monitor(monitor), trainer))


@pytest.mark.parametrize(
    "cls", [nets.LitNet, nets.Deeper, nets.Tested, nets.Normed, nets.Warming, nets.Counting, nets.Scored]
)
def test_ordinary_modules_are_compatible(cls: type):
    assert check(cls) == []


class Stepping(nets.LitNet):
    def optimizer_step(self, *_: object) -> None:  # type: ignore[override]
        pass


@pytest.mark.parametrize(
    ("cls", "reason"),
    [
        (nets.Manual, r"the module uses manual optimization \(nets.py:\d+\)"),
        (specimens.Setting, r"a step sets lr of a parameter group, which differs between trials \(specimens.py:\d+\)"),
        (Stepping, r"the module overrides optimizer_step \(test_compatibility.py:\d+\)"),
    ],
)
def test_incompatible_modules(cls: type, reason: str):
    (found,) = check(cls)
    assert re.fullmatch(reason, found)
    assert remedy(found)


def test_monitor_must_be_logged():
    (found,) = check(nets.LitNet, "val_f1")
    assert re.fullmatch(r"validation_step does not log val_f1 \(nets.py:\d+\)", found)


def test_learning_rates_may_be_read() -> None:
    assert [*check(nets.Showing)] == []


class Many(nets.LitNet):
    """Does much that rows cannot do."""

    def backward(self, loss: torch.Tensor, *args: object, **kwargs: object) -> None:
        loss.backward()

    def validation_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> None:
        self.log("lr", self.trainer.optimizers[0].param_groups[0]["lr"])

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.SGD([each], 0.1) for each in self.parameters()]


def test_every_reason_is_named_with_its_place() -> None:
    patterns = (
        r"the module overrides backward \(test_compatibility.py:\d+\)",
        r"configure_optimizers returns list, not a single optimizer \(test_compatibility.py:\d+\)",
        r"validation_step reads trainer.optimizers, which differs between trials \(test_compatibility.py:\d+\)",
    )
    found = check(Many)
    assert len(found) == len(patterns)
    for pattern, reason in zip(patterns, found, strict=True):
        assert re.fullmatch(pattern, reason)
        assert remedy(reason)
