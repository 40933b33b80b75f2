from __future__ import annotations

import logging

import lightning
import pytest
from torch import nn

from dropsearch._compat.lightning import is_lightning_class, package_of, quiet_loggers, trainer_class


class Mine(lightning.LightningModule):
    pass


class LightningModule(nn.Module):
    """Has the name, and is none."""


def test_a_subclass_belongs_to_the_package_of_its_base_and_is_not_lightning_s_own():
    assert package_of(Mine()) == "lightning.pytorch"
    assert trainer_class(package_of(Mine())) is lightning.Trainer
    assert [is_lightning_class(kind) for kind in Mine.__mro__[:2]] == [False, True]


def test_the_other_package_s_modules_get_its_own_trainer():
    other = pytest.importorskip("pytorch_lightning")
    made = type("Theirs", (other.LightningModule,), {})()
    assert trainer_class(package_of(made)) is other.Trainer


@pytest.mark.parametrize("module", [LightningModule(), nn.Linear(2, 2), 3])
def test_what_is_no_lightning_module_has_no_package(module: object):
    assert package_of(module) == ""


def test_loggers_are_as_they_were_afterwards():
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    with quiet_loggers(logging.CRITICAL):
        assert logger.level == logging.CRITICAL
    assert logger.level == before
