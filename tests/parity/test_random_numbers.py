"""What a step draws from torch is a function of the seed, the place and the step; what a hook draws is torch's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dropsearch.dropout.trial_control import SeededNoise
from tests.parity.conftest import SEED, losses, plain, trial
from tests.parity.test_rates import Net


class Jittered(Net):
    """Adds noise in training and in validation."""

    def jitter(self, name: str, like: Tensor) -> Tensor:
        return torch.randn_like(like)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)) + 0.3 * self.jitter("model~randn_like", torch.empty(len(x), 16)))


class ByHand(Jittered):
    """The same with its numbers made by hand, for plain Lightning."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.noise, self.counts = SeededNoise(seed), {"": 0, "evaluation": 0}

    def jitter(self, name: str, like: Tensor) -> Tensor:
        phase = "" if self.training else "evaluation"
        self.noise.begin(phase, self.counts[phase])
        self.counts[phase] += 1
        high, low = (self.noise.bits(name, torch.Size((*like.shape, 2)), like.device).double() + 32768).unbind(-1)
        return torch.special.ndtri((high * 65536 + low + 0.5) / 2**32)


def test_a_trial_equals_plain_lightning_with_its_numbers_made_by_hand() -> None:
    found = losses(trial(Jittered, {"drop": 0.0, "model": 0.0})[0])
    assert found == pytest.approx(plain(lambda: ByHand(SEED)), rel=1e-9)


class Hooked(Net):
    """Draws in a hook, outside of any step."""

    def __init__(self, p: float = 0.0) -> None:
        super().__init__(p)
        self.drawn: list[Any] = []

    def on_train_epoch_start(self) -> None:
        self.drawn.append(torch.rand(3))


def test_what_a_hook_draws_comes_from_the_seeded_generator() -> None:
    first, again = (trial(Hooked, {})[1].drawn for _ in range(2))
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], first[1])
