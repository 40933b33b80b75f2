"""Optimizers and schedules by name."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from dropsearch.models import Classifier
from dropsearch.models.optimizers import OPTIMIZERS, SCHEDULES, build_optimizer, schedule_factor

CONF = Path(__file__).parents[2] / "conf" / "optimizer"


def _net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


@pytest.mark.parametrize(
    ("name", "kind", "own"),
    [
        ("adamw", torch.optim.AdamW, {"betas": (0.8, 0.95)}),
        ("adam", torch.optim.Adam, {"betas": (0.8, 0.95)}),
        ("sgd", torch.optim.SGD, {"momentum": 0.7, "nesterov": True}),
    ],
)
def test_optimizer_options(name, kind, own):
    optimizer = build_optimizer(_net(), name, lr=0.02, weight_decay=0.3, **own)

    assert type(optimizer) is kind
    for group in optimizer.param_groups:
        assert group["lr"] == 0.02
        assert {key: group[key] for key in own} == own


def test_weight_decay_applies_to_weights_only():
    net = _net()
    decayed, spared = build_optimizer(net, "adamw", lr=0.1, weight_decay=0.3).param_groups

    assert [p.shape for p in decayed["params"]] == [(3, 4), (2, 3)]
    assert decayed["weight_decay"] == 0.3
    assert [p.shape for p in spared["params"]] == [(3,), (3,), (3,), (2,)]
    assert spared["weight_decay"] == 0.0


def test_frozen_parameters_are_excluded():
    net = _net()
    net[0].requires_grad_(False)

    groups = build_optimizer(net, "sgd", lr=0.1).param_groups
    assert sum(len(group["params"]) for group in groups) == 4


def test_empty_group_is_omitted():
    assert len(build_optimizer(nn.Linear(2, 2, bias=False), "adam", lr=0.1).param_groups) == 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_config_file_has_classifier_defaults(name):
    written = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert written.pop("name") == name
    parameters = inspect.signature(Classifier).parameters

    for key, value in written.items():
        default = parameters[key].default
        assert value == (list(default) if isinstance(default, tuple) else default)
    assert set(written) == {"schedule"} | ({"momentum", "nesterov"} if name == "sgd" else {"betas"})


@given(schedule=st.sampled_from(SCHEDULES), epochs=st.integers(1, 200), data=st.data())
def test_schedule_factors_are_in_range(schedule, epochs, data):
    epoch = data.draw(st.integers(0, epochs - 1))

    assert 0 < schedule_factor(schedule, epoch, epochs) <= 1


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("none", [1, 1, 1, 1, 1, 1, 1, 1]),
        ("step", [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]),
        ("warmup_cosine", [0.5, 1.0]),
    ],
)
def test_schedule_factors(schedule, factors):
    assert [schedule_factor(schedule, epoch, 8) for epoch in range(len(factors))] == pytest.approx(factors)


def test_cosine_equals_pytorch():
    optimizer = torch.optim.SGD(_net().parameters(), lr=1.0)
    judge = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7)
    for epoch in range(7):
        assert schedule_factor("cosine", epoch, 7) == pytest.approx(judge.get_last_lr()[0])
        optimizer.step()
        judge.step()
