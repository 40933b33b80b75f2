"""Frozen parts that are equal in all trials are one tensor for all rows, and change no trial."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dropsearch.core.records import EpochMetrics, TrialSpec
from dropsearch.training.planning.memory import measure_memory
from dropsearch.training.planning.throughput import Throughput
from dropsearch.training.vectorized.held_once import NotHeldOnceError, equal_in_all, fingerprint, use, use_frozen
from dropsearch.training.vectorized.row_source import RowSource
from dropsearch.training.vectorized.trial_stack import TrialStack
from tests.training.conftest import Queue
from tests.training.vectorized.laws import Case, assert_alike, assert_law_2, trials
from tests.user_modules import frozen
from tests.user_modules.data import Digits

SITES = {
    frozen.Lora: ["first.lora_dropout", "last.lora_dropout", "drop"],
}
BACKBONE = 64 * 40 + 40 + 40 + 40 + 40 * 64 + 64
BATCH_NORM = 40 + 40 + 1


def rows_of(make: type, width: int = 3, **options: bool) -> TrialStack:
    case = Case(make, Digits())
    rows = case.source.in_rows()
    assert rows is not None
    specs = trials(width, SITES.get(make, ["model", "drop"]))
    return TrialStack(RowSource(case.make_module, rows, case.settings, Queue(specs)), width, **options)


def numbers(tensors: object) -> int:
    return sum(tensor.numel() for tensor in tensors)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "make", [frozen.NewHead, frozen.Lora, frozen.Lottery, frozen.Mixed, frozen.Normalizing, frozen.Fading]
)
def test_law_2_holds(make: type, tmp_path: Path) -> None:
    assert_law_2(Case(make, Digits()), tmp_path, SITES.get(make, ["model", "drop"]))


@pytest.mark.parametrize(
    ("make", "once"),
    [
        (frozen.NewHead, BACKBONE + BATCH_NORM),
        (frozen.Lora, BACKBONE + BATCH_NORM),
        (frozen.Lottery, 40 + 40 + BATCH_NORM),
        (frozen.Normalizing, BACKBONE),
    ],
)
def test_what_is_equal_and_unchanged_is_stored_once(make: type, once: int) -> None:
    whole, apart = rows_of(make), rows_of(make, holds_once=False)
    assert numbers(whole.rows.shared.values()) == once
    stacked = lambda rows: numbers([rows.flat, *rows.buffers.values()])  # noqa: E731
    assert stacked(apart.rows) - stacked(whole.rows) == 3 * once
    for trial_row in whole.trial_rows:
        state = trial_row.module.state_dict()
        assert all(state[name].data_ptr() == value.data_ptr() for name, value in whole.rows.shared.items())


def test_a_single_row_holds_its_own() -> None:
    assert not rows_of(frozen.NewHead, width=1).rows.shared


def test_memory_of_a_row_leaves_out_what_is_held_once() -> None:
    case, (spec, *_) = Case(frozen.NewHead, Digits()), trials(2)
    rows = case.source.in_rows()
    assert rows is not None
    settings = dataclasses.replace(case.settings, precision="32-true")
    make = lambda each: case.make_module(each).float()  # noqa: E731
    memory = measure_memory(Throughput(make, rows, settings, spec).make_trials)
    assert memory.held_once == 4 * (BACKBONE + BATCH_NORM - 1) + 8  # the count of batches is an int64
    assert memory.fixed >= memory.held_once


def test_a_refilled_row_and_a_bad_neighbor_change_nothing(tmp_path: Path) -> None:
    def prune(spec: TrialSpec, metrics: EpochMetrics) -> bool:
        return spec.number == 1 and metrics.epoch == 0

    case, specs = Case(frozen.Lora, Digits()), trials(4, SITES[frozen.Lora])
    bad = TrialSpec("dropout", 9, 9, specs[0].rates, lr=1e30, weight_decay=0.0)
    alone = case.sequential(specs, tmp_path, prune=prune)
    beside = case.vectorized([bad, *specs], tmp_path, width=3, prune=prune)
    assert beside.pop(9).state == "FAIL"
    assert_alike(beside, alone)


class Late(frozen.NewHead):
    """Whose frozen part is another one in trials of a high learning rate."""

    def __init__(self, lr: float = 1e-3) -> None:
        super().__init__(lr=lr)
        if lr > 5e-3:
            self.backbone[0].reset_parameters()  # type: ignore[operator]


def test_a_trial_that_differs_in_a_refilled_row_gets_its_own(tmp_path: Path) -> None:
    case, specs = Case(Late, Digits()), trials(4)
    assert_alike(case.vectorized(specs, tmp_path, width=2), case.sequential(specs, tmp_path))


@given(seed=st.integers(0, 99), frozen_parts=st.sets(st.sampled_from(["0.weight", "0.bias", "1.weight", "1.bias"])))
@settings(max_examples=12, deadline=None)
def test_equal_in_all_is_what_is_frozen_and_equal(seed: int, frozen_parts: set[str]) -> None:
    generator = torch.Generator().manual_seed(seed)
    modules = [nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)) for _ in range(3)]
    differs = bool(torch.rand((), generator=generator) < 0.5)
    for number, module in enumerate(modules):
        for name, parameter in module.named_parameters():
            parameter.data = torch.full_like(parameter, float(number) if differs and name == "0.bias" else 1.0)
            parameter.requires_grad_(name not in frozen_parts)
    assert set(equal_in_all(modules)) == frozen_parts - ({"0.bias"} if differs else set())
    assert equal_in_all(modules[:1]) == {}


def test_a_module_that_differs_cannot_use_it() -> None:
    one, other = nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(NotHeldOnceError, match="weight differs between trials"):
        use(other, {"weight": one.weight.detach()})
    other.load_state_dict(one.state_dict())
    use_frozen(other, one)
    assert other.weight.data_ptr() == one.weight.data_ptr()


def test_parts_that_another_trial_overwrites_are_not_used() -> None:
    one, other = nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2).requires_grad_(False)
    other.load_state_dict(one.state_dict())
    use_frozen(other, one, {"bias"})
    assert other.bias.data_ptr() == one.bias.data_ptr()
    assert other.weight.data_ptr() != one.weight.data_ptr()


def test_a_fingerprint_follows_each_change() -> None:
    values = [
        torch.arange(4.0),
        torch.ones(2, dtype=torch.int64),
        torch.tensor([-torch.inf, 0, torch.nan]),
        torch.eye(2) * 1j,
    ]
    before = fingerprint(values)
    assert torch.equal(before, fingerprint(values))
    values[0][2] = -2.0
    assert not torch.equal(before, fingerprint(values))
