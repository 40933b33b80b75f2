"""Every call of a site, in every pass, has the trial's rate."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dropsearch.dropout.mask_bits import SiteBits
from dropsearch.dropout.sites import dropout_sites
from dropsearch.dropout.trial_control import TrialControl
from tests.parity.conftest import SEED, losses, plain, trial


class Net(LightningModule):
    """A regression with a dropout module and a bare call."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p
        self.first, self.drop, self.last = nn.Linear(6, 16), nn.Dropout(p), nn.Linear(16, 1)

    def hidden(self, x: Tensor) -> Tensor:
        return F.dropout(torch.tanh(self.drop(self.first(x))), self.p, self.training)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.hidden(x))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.mse_loss(self(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", F.mse_loss(self(batch[0]), batch[1]), batch_size=len(batch[0]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)


class Checkpointed(Net):
    """The same, with its hidden layer computed again in the backward."""

    reentrant = True

    def forward(self, x: Tensor) -> Tensor:
        return self.last(checkpoint(self.hidden, x.requires_grad_(), use_reentrant=self.reentrant))


class NotReentrant(Checkpointed):
    reentrant = False


class Nested(Net):
    """A checkpoint inside another, and a drop behind both."""

    def forward(self, x: Tensor) -> Tensor:
        def outer(x: Tensor) -> Tensor:
            return torch.tanh(checkpoint(self.hidden, x, use_reentrant=False)) * 2

        return self.last(checkpoint(outer, x.requires_grad_(), use_reentrant=False))


class NestedPlain(Net):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.hidden(x)) * 2)


class ByHand(Net):
    """Net with its masks written out by hand, for plain Lightning."""

    def __init__(self, rates: dict[str, float]) -> None:
        super().__init__(0.0)
        self.rates, self.step, self.bits = rates, -1, SiteBits()

    def hidden(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().hidden(x)
        self.step += 1
        return self.dropped("model", torch.tanh(self.dropped("drop", self.first(x))))

    def dropped(self, site: str, x: Tensor) -> Tensor:
        bits = torch.from_numpy(self.bits.draw(SEED, site, self.step, x.numel())).view(x.shape)
        return x * (bits >= round(self.rates[site] * 65536) - 32768) / (1 - self.rates[site])


@pytest.mark.parametrize("rates", [{"drop": 0.25, "model": 0.75}, {"drop": 0.0, "model": 0.5}])
@pytest.mark.parametrize("make", [Net, Checkpointed, NotReentrant])
def test_a_trial_equals_plain_lightning_with_masks_by_hand(make: type[Net], rates: dict[str, float]) -> None:
    assert losses(trial(make, rates)[0]) == pytest.approx(plain(lambda: ByHand(rates)), rel=1e-9)


@pytest.mark.parametrize("make", [Net, Checkpointed, NotReentrant])
@pytest.mark.parametrize(
    ("arm", "rates"), [("none", {}), ("none", {"drop": 0.0, "model": 0.0}), ("dropout", {"drop": 0.0, "model": 0.0})]
)
def test_a_trial_without_dropout_equals_plain_lightning_at_rate_zero(make: type[Net], arm: str, rates: Any) -> None:
    assert losses(trial(make, rates, arm)[0]) == pytest.approx(plain(lambda: make(0.0)), rel=1e-12)


def test_nested_checkpoints_compute_the_same_masks_again() -> None:
    rates = {"drop": 0.3, "model": 0.6}
    assert losses(trial(Nested, rates)[0]) == pytest.approx(losses(trial(NestedPlain, rates)[0]), rel=1e-12)


class Sampled(Net):
    """Drops on purpose in validation, and before training in a hook."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.shares: dict[str, list[float]] = defaultdict(list)

    def hidden(self, x: Tensor) -> Tensor:
        return self.sampled(torch.tanh(self.first(x)))

    def sampled(self, h: Tensor) -> Tensor:
        dropped = F.dropout(h, self.p)
        self.shares[self.trainer.state.stage or ""].append(float((dropped == 0).double().mean()))
        return dropped

    def configure_optimizers(self) -> Any:
        self.sampled(torch.ones(100, 10))
        return super().configure_optimizers()

    def on_train_epoch_end(self) -> None:
        self.sampled(torch.ones(100, 10))


def test_a_drop_in_validation_has_the_rate_of_its_site() -> None:
    result, module = trial(Sampled, {"model": 0.9})
    assert losses(result) != pytest.approx(losses(trial(Sampled, {"model": 0.0})[0]))
    for shares in module.shares.values():
        assert sum(shares) / len(shares) == pytest.approx(0.9, abs=0.05)
    assert set(module.shares) == {"train", "validate"}


class Always(nn.Module):
    """Drops in every pass, as Monte Carlo dropout does."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p)


class MonteCarlo(Net):
    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.always = Always(p)

    def hidden(self, x: Tensor) -> Tensor:
        return self.always(torch.tanh(self.first(x)))


def test_what_is_measured_on_the_training_part_drops_at_the_same_rate() -> None:
    results = [trial(lambda p=p: MonteCarlo(p), {"always": 0.1})[0] for p in (0.5, 0.1)]
    assert losses(results[0]) == losses(results[1])
    assert [point.train_loss for point in results[0].curve] == [point.train_loss for point in results[1].curve]


@pytest.mark.parametrize("rates", [{}, {"model": 0.0}])
def test_nothing_drops_in_arm_none_in_any_pass(rates: dict[str, float]) -> None:
    result, module = trial(Sampled, rates, "none")
    assert {share for shares in module.shares.values() for share in shares} == {0.0}
    assert losses(result) == pytest.approx(plain(lambda: Sampled(0.0)), rel=1e-12)


def test_a_site_at_rate_one_equals_plain_lightning_in_every_pass() -> None:
    assert losses(trial(Sampled, {"model": 1.0})[0]) == pytest.approx(plain(lambda: Sampled(1.0)), rel=1e-12)


def test_a_drop_in_arm_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from dropsearch.core.errors import RunError
    from dropsearch.dropout.rates import Rate

    monkeypatch.setattr("dropsearch.dropout.control._ZERO", Rate.of(0.5))
    with pytest.raises(RunError, match=r"trial none/0 has no dropout and must not drop, got drop \(\d+ calls\), model"):
        trial(Net, {}, "none")


class Recurrent(Net):
    """Drops between the layers of a fused recurrent network."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.rnn = nn.LSTM(1, 16, num_layers=2, dropout=p, batch_first=True)

    def hidden(self, x: Tensor) -> Tensor:
        return self.rnn(x[:, :, None])[0][:, -1]


def test_a_recurrent_dropout_is_off_in_arm_none() -> None:
    assert losses(trial(Recurrent, {}, "none")[0]) == pytest.approx(plain(lambda: Recurrent(0.0)), rel=1e-12)


class Decoder(Net):
    """Calls one dropout as often as the batch is long, and a bare one in the loop."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.shares: list[list[float]] = []
        self.masks: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        steps = 3 + len(self.shares) if self.training else 3
        shares, self.masks = [], []
        for _ in range(steps):
            ones = torch.ones(40, 50)
            self.masks.append(self.drop(ones) == 0)
            bare = F.dropout(ones, self.p, self.training) == 0
            shares += [float(self.masks[-1].double().mean()), float(bare.double().mean())]
            h = F.dropout(self.drop(h), self.p, self.training)
        if self.training:
            self.shares.append(shares)
        return self.last(h)


def test_one_dropout_called_many_times_is_one_site() -> None:
    module = Decoder()
    sites = dropout_sites(module, lambda: module(torch.ones(2, 6)))
    assert [site.name for site in sites] == ["drop", "model", "model#2"]


def test_calls_beyond_those_of_the_first_batch_have_the_trials_rate() -> None:
    _, module = trial(Decoder, {"drop": 0.88, "model": 0.25, "model#2": 0.0})
    assert len(module.shares[-1]) > len(module.shares[0])
    for shares in module.shares:
        assert shares[::2] == [pytest.approx(0.88, abs=0.04)] * (len(shares) // 2)
        assert shares[1::2] == [pytest.approx(0.25, abs=0.05)] * (len(shares) // 2)
    _, module = trial(Decoder, {}, "none")
    assert {share for shares in module.shares for share in shares} == {0.0}


def test_masks_of_repeated_calls_differ() -> None:
    module = Decoder()
    control = TrialControl(module, {"drop": 0.5}, seed=1)
    with control.watching(), control.training_step(0):
        module(torch.ones(2, 6))
    assert all(not torch.equal(a, b) for i, a in enumerate(module.masks) for b in module.masks[i + 1 :])


def test_a_later_call_takes_its_own_rate_on_request() -> None:
    module = Decoder()
    control = TrialControl(module, {"drop": 0.0, "drop@2": 1.0}, seed=1)
    with control.watching(), control.training_step(0):
        module(torch.ones(2, 6))
    assert [float(mask.double().mean()) for mask in module.masks] == [0.0, 1.0, 1.0]


class Branching(Net):
    """The first of its two bare calls stands behind an `if`."""

    def __init__(self, deep: bool) -> None:
        super().__init__()
        self.deep = deep

    def forward(self, x: Tensor) -> Tensor:
        if self.deep:
            x = F.dropout(x, 0.1, self.training)
        return F.dropout(x, 0.2, self.training)


@pytest.mark.parametrize("deep", [True, False])
def test_a_bare_call_is_known_by_its_place_in_the_code(deep: bool) -> None:
    module = Branching(deep)
    control = TrialControl(module, {"model": 1.0, "model#2": 0.0}, seed=0)
    with control.watching(), control.training_step(0):
        assert bool((module(torch.ones(4, 6)) == 0).all()) is deep


def test_what_drops_and_is_no_site_is_named() -> None:
    module = Branching(True)
    control = TrialControl(module, {"model#2": 0.3}, seed=0)
    with control.watching(), control.training_step(0):
        module(torch.ones(4, 6))
    assert control.unnamed == {"model": 0.1}


class Grown(Net):
    """Builds its dropout in a hook of the Trainer."""

    def __init__(self) -> None:
        super().__init__()
        del self.drop

    def setup(self, stage: str) -> None:
        self.drop = nn.Dropout(0.5)


def test_a_dropout_that_a_hook_builds_has_its_rate() -> None:
    rates = {"drop": 0.25, "model": 0.75}
    assert losses(trial(Grown, rates)[0]) == pytest.approx(plain(lambda: ByHand(rates)), rel=1e-9)
