"""Random numbers that a step draws: the same sequentially and in any row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from dropsearch.core.global_state import seeded
from dropsearch.core.records import EpochMetrics, TrialSpec
from dropsearch.dropout.trial_control import TrialControl
from tests.training.vectorized.laws import Case, assert_alike, assert_law_2, trials
from tests.user_modules import generative
from tests.user_modules.data import Digits

VAE_SITES = ["drop", "decoder.2"]
LITNET = ["model", "drop"]


def two_batches() -> Digits:
    """Return data whose validation set is a batch and a part of one."""
    return Digits(examples=280)


@pytest.mark.parametrize(
    ("make", "sites"),
    [
        (generative.VAE, VAE_SITES),
        (generative.Distributed, VAE_SITES),
        (generative.Epochal, VAE_SITES),
        (generative.Mixup, LITNET),
        (generative.Proportions, LITNET),
        (generative.Noisy, LITNET),
        (generative.Growing, LITNET),
        (generative.MixedInPython, LITNET),
        (generative.Routed, ["drop", "experts.0.1", "experts.1.1"]),
    ],
)
def test_law_2_holds(make: type, sites: list[str], tmp_path: Path) -> None:
    assert_law_2(Case(make, two_batches()), tmp_path, sites)


@pytest.mark.parametrize("make", [generative.VAE, generative.Epochal])
def test_a_refilled_row_and_a_bad_neighbor_change_nothing(make: type, tmp_path: Path) -> None:
    def prune(spec: TrialSpec, metrics: EpochMetrics) -> bool:
        return spec.number == 1 and metrics.epoch == 0

    case, specs = Case(make, two_batches()), trials(4, VAE_SITES)
    bad = TrialSpec("dropout", 9, 9, specs[0].rates, lr=1e30, weight_decay=0.0)
    alone = case.sequential(specs, tmp_path, prune=prune)
    rows = case.vectorized([bad, *specs], tmp_path, width=2, prune=prune)
    assert (alone[1].state, rows.pop(9).state) == ("PRUNED", "FAIL")
    assert_alike(rows, alone)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (generative.GAN, r"the module uses manual optimization \(generative.py:\d+\)"),
        (generative.Filling, r"normal_ fills a tensor that all trials share \(generative.py:\d+\)"),
        (generative.Counting, r"a step draws .* torch draws by poisson \(generative.py:\d+\)"),
        (generative.OwnGenerator, r"a step draws .* randn draws from its own generator \(generative.py:\d+\)"),
    ],
)
def test_what_has_no_key_is_named_with_its_place(make: type, reason: str) -> None:
    assert re.match(reason, Case(make, Digits()).reason()), Case(make, Digits()).reason()


@pytest.mark.parametrize("make", [generative.GAN, generative.Counting, generative.OwnGenerator])
def test_what_has_no_key_trains_sequentially_by_its_seed(make: type, tmp_path: Path) -> None:
    case, specs = Case(make, Digits()), trials(2, ["critic.2"] if make is generative.GAN else LITNET)
    one, other = (case.sequential(specs, tmp_path) for _ in range(2))
    assert {result.state for result in one.values()} == {"COMPLETE"}
    assert_alike(one, other)


def test_the_numbers_do_not_come_from_the_global_generator(tmp_path: Path) -> None:
    case, (spec,) = Case(generative.VAE, Digits(), epochs=1), trials(1, VAE_SITES)
    module = case.make_module(spec)
    control, x, found = TrialControl(module, spec.rates, 3), torch.rand(5, 64, dtype=torch.float64), []
    for seed in (1, 2):
        with seeded(seed), control.watching(), control.training_step(4):
            found.append(float(module.loss(x).detach()))
            state = torch.random.get_rng_state()
            module.loss(x)
            assert torch.equal(state, torch.random.get_rng_state())
    assert found[0] == found[1]
