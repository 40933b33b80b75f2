"""Accumulated gradients and clipping: the same in rows as under Lightning."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging, Timer, WeightAveraging

from dropsearch.core.records import TrialSpec
from dropsearch.training.planning.compatibility import not_of_rows
from dropsearch.training.vectorized.device_step import DeviceStep
from dropsearch.training.vectorized.trial_stack import TrialStack
from tests.training.vectorized.laws import Case, assert_alike, assert_law_2, trials
from tests.user_modules import metrics
from tests.user_modules.data import Digits
from tests.user_modules.grouped import Grouped

SITES = ["model", "drop"]
ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"accumulate_grad_batches": 3, "gradient_clip_val": 0.05},
    {"accumulate_grad_batches": 2, "gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
]


def case(make: Any, **arguments: Any) -> Case:
    """Return a case with five batches an epoch, the last of which steps by itself."""
    return Case(make, Digits(batch_size=20), epochs=2, **arguments)


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_law_2_holds(arguments: dict[str, Any], tmp_path: Path) -> None:
    assert_law_2(case(Grouped, **arguments), tmp_path, SITES)


@pytest.mark.parametrize("arguments", ARGUMENTS[1:], ids=str)
def test_the_step_of_a_device_honours_them(
    arguments: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dropsearch.training.vectorized.trial_stack.uses_cuda_graphs", lambda _: True)
    used: list[type] = []
    make_step = TrialStack._make_step

    def noted(self: TrialStack, *args: Any) -> Any:
        step = make_step(self, *args)
        used.append(type(step))
        return step

    monkeypatch.setattr(TrialStack, "_make_step", noted)
    given, specs = case(Grouped, **arguments), trials(3, SITES)
    assert_alike(given.vectorized(specs, tmp_path), given.sequential(specs, tmp_path))
    assert set(used) == {DeviceStep}


def test_a_module_that_reads_the_step_counts_those_of_its_optimizer(tmp_path: Path) -> None:
    assert_law_2(case(metrics.Warming, accumulate_grad_batches=2), tmp_path, SITES)


def test_accumulation_and_clipping_change_the_numbers(tmp_path: Path) -> None:
    specs = trials(1, SITES)
    losses = [case(Grouped, **given).vectorized(specs, tmp_path)[0].curve[-1].val_loss for given in ARGUMENTS]
    assert len(set(losses)) == len(losses)
    assert all(map(torch.isfinite, torch.tensor(losses)))


class Averaging(EMAWeightAveraging):
    """An average of the weights of the later steps, as a user configures it."""

    def __init__(self) -> None:
        super().__init__(decay=0.7, update_every_n_steps=2, update_starting_at_step=3)


class EveryEpoch(WeightAveraging):
    """An average of the weights at the ends of epochs."""

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return epoch_idx is not None


@pytest.mark.parametrize(
    ("make", "callback"), [(Grouped, Averaging), (Grouped, EveryEpoch), (metrics.Outputs, Averaging)]
)
def test_averages_of_weights_hold_law_2(make: Any, callback: Any, tmp_path: Path) -> None:
    given, specs = case(make, accumulate_grad_batches=2), trials(2, SITES)
    trainer = lambda: {"accumulate_grad_batches": 2, "callbacks": [callback()]}  # noqa: E731
    without, given.settings = given.settings, dataclasses.replace(given.settings, trainer=trainer, max_epochs=3)
    assert given.reason(SITES) == ""
    alone = given.sequential(specs, tmp_path)
    assert_alike(given.vectorized(specs, tmp_path), alone)
    given.settings = without
    assert given.sequential(specs[:1], tmp_path)[0].curve[1].val_loss != alone[0].curve[1].val_loss


def test_an_average_of_weights_is_kept_through_a_refilled_row_and_a_bad_neighbor(tmp_path: Path) -> None:
    given, specs = case(Grouped), trials(3, SITES)
    given.settings = dataclasses.replace(given.settings, trainer=lambda: {"callbacks": [Averaging()]})
    bad = TrialSpec("dropout", 9, 9, specs[0].rates, lr=1e30, weight_decay=0.0)
    beside = given.vectorized([bad, *specs], tmp_path, width=2)
    assert beside.pop(9).state == "FAIL"
    assert_alike(beside, given.sequential(specs, tmp_path))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({}, []),
        ({"accumulate_grad_batches": 4, "gradient_clip_val": 1.0, "enable_progress_bar": True}, []),
        ({"callbacks": [], "logger": False, "enable_checkpointing": False, "log_every_n_steps": 1}, []),
        ({"val_check_interval": None, "limit_train_batches": 1.0, "num_sanity_val_steps": 0, "strategy": "auto"}, []),
        ({"callbacks": EMAWeightAveraging()}, []),
        ({"accumulate_grad_batches": {0: 2}}, ["trainer.accumulate_grad_batches"]),
        ({"gradient_clip_algorithm": "agc"}, ["trainer.gradient_clip_algorithm"]),
        (
            {"callbacks": [EMAWeightAveraging(), StochasticWeightAveraging(0.1), Timer()]},
            ["the callback StochasticWeightAveraging", "the callback Timer"],
        ),
        (
            {"num_sanity_val_steps": 2, "check_val_every_n_epoch": 2},
            ["check_val_every_n_epoch", "num_sanity_val_steps"],
        ),
        ({"limit_train_batches": 1}, ["trainer.limit_train_batches"]),
    ],
    ids=" ".join,
)
def test_what_rows_do_not_honour_is_named(arguments: dict[str, Any], named: list[str]) -> None:
    found = list(not_of_rows(arguments))
    assert len(found) == len(named)
    for line, part in zip(found, named, strict=True):
        assert part in line
        assert line.endswith("works with sequential training only")
