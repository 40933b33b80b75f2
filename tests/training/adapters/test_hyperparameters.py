"""How a trial's learning rate and weight decay reach a module that somebody else wrote."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import nn

from dropsearch.core.errors import InputError
from dropsearch.core.records import TrialSpec
from dropsearch.training.adapters.hyperparameters import (
    accepted,
    arguments_of,
    routes,
    with_groups_set,
)
from dropsearch.training.adapters.learning_rate import optimizers_of
from tests.user_modules import nets

SPEC = TrialSpec("dropout", 0, 0, {}, lr=0.3, weight_decay=0.05)


class Configured:
    """What has a `configure_optimizers`."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def configure_optimizers(self) -> Any:
        return self._answer


def set_on(answer: Any, names: set[str] = frozenset()) -> list[dict[str, Any]]:  # type: ignore[assignment]
    module = Configured(answer)
    with_groups_set(module, SPEC, routes(names, optimizers_of(answer)))
    return [group for optimizer in optimizers_of(module.configure_optimizers()) for group in optimizer.param_groups]


def weights() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2))]


def test_a_subclass_takes_what_its_base_class_takes():
    assert not accepted(nets.Deeper)[1]
    assert accepted(nets.LitNet)[0] == {"width", "lr", "norm"}
    assert accepted(nets.Deeper)[0] == {"extra", "width", "lr", "norm"}
    assert accepted(nets.Scored)[0] == {"backbone"}
    assert accepted(nets.Normed)[0] == {"width"}


class Reading(nn.Module):
    def __init__(self, **given: int) -> None:
        super().__init__()
        self.width = given["width"]


def test_a_class_that_reads_its_keywords_takes_any_argument():
    assert accepted(Reading) == (set(), True)


@pytest.mark.parametrize("name", ["lr", "learning_rate"])
def test_an_argument_is_the_first_way(name: str):
    found = routes({name, "weight_decay"}, [])
    assert [route.how for route in found] == ["argument", "argument"]
    assert arguments_of(SPEC, found) == {name: 0.3, "weight_decay": 0.05}


def test_the_groups_are_the_second():
    (group,) = set_on(torch.optim.AdamW(weights(), lr=1e-3))
    assert (group["lr"], group["weight_decay"]) == (pytest.approx(0.3), 0.05)


def test_groups_keep_their_ratio_and_what_is_exempt_from_decay_stays_exempt():
    first, second = set_on(
        torch.optim.SGD([{"params": weights(), "lr": 1e-3, "weight_decay": 0.1}, {"params": weights(), "lr": 1e-2}])
    )
    assert (first["lr"], second["lr"]) == (pytest.approx(0.3), pytest.approx(3.0))
    assert (first["weight_decay"], second["weight_decay"]) == (0.05, 0)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5),
        lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.1 + epoch),
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5),
        lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.01, total_steps=10),
        lambda optimizer: torch.optim.lr_scheduler.SequentialLR(
            optimizer,
            [
                torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=2),
                torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
            ],
            [2],
        ),
    ],
    ids=["step", "lambda", "cosine", "one cycle", "sequential"],
)
def test_a_schedule_runs_as_if_it_had_been_made_with_the_learning_rate(schedule: Any):
    optimizer = torch.optim.SGD(weights(), lr=0.01)
    expected = torch.optim.SGD(weights(), lr=0.01)
    mine, theirs = schedule(optimizer), schedule(expected)
    base = expected.param_groups[0]["initial_lr"]
    set_on({"optimizer": optimizer, "lr_scheduler": {"scheduler": mine, "interval": "epoch"}})
    for _ in range(5):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected.param_groups[0]["lr"] * 0.3 / base)
        for one, other in ((optimizer, mine), (expected, theirs)):
            one.step()
            other.step()


def test_what_cannot_be_set_is_not_searched_and_says_so():
    class Plain(torch.optim.Optimizer):
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, {})

        def step(self, closure: Any = None) -> None: ...

    found = routes(set(), [Plain(weights())])
    assert [route.searched for route in found] == [False, False]
    assert "the learning rate is not searched" in found[0].description
    assert math.isnan(found[0].own)


def test_what_is_searched_of_an_optimiser_is_set_on_its_groups():
    hyperparameters = {"optimizer.betas": [0.5, 0.6], "trainer.gradient_clip_val": 1.0}
    module = Configured(torch.optim.AdamW(weights(), lr=1e-3))
    with_groups_set(module, dataclasses.replace(SPEC, hyperparameters=hyperparameters), ())
    (optimizer,) = optimizers_of(module.configure_optimizers())
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.6)
    assert optimizer.param_groups[0]["lr"] == 1e-3


def test_a_momentum_that_its_schedule_moves_cannot_be_searched():
    optimizer = torch.optim.SGD(weights(), lr=0.1, momentum=0.9)
    torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 10)
    module = Configured(optimizer)
    with_groups_set(module, dataclasses.replace(SPEC, hyperparameters={"optimizer.momentum": 0.5}), ())
    with pytest.raises(InputError, match="the module's schedule changes it"):
        module.configure_optimizers()
