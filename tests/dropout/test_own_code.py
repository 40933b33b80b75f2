"""The laws of dropout hold for operations that drop by code of their own, in each family."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import dropsearch
from dropsearch.core.errors import InputError
from dropsearch.dropout.distributions import numbers_of
from dropsearch.dropout.mask_bits import SiteBits
from dropsearch.dropout.ops import own_code
from dropsearch.dropout.own_sites import Scope
from dropsearch.dropout.sites import dropout_sites
from tests.dropout import own_code as ops
from tests.dropout.rows import alone, share, stacked

X = torch.rand(3000, 4, dtype=torch.float64) + 0.5
IMAGES = torch.rand(8, 5, 16, 16, dtype=torch.float64) + 0.5
STEPS = torch.rand(5, 60, 50, dtype=torch.float64) + 0.5


@dataclass(frozen=True)
class Family:
    make: Callable[[], nn.Module]
    x: Tensor
    mask: tuple[int, ...]
    """The shape of what is drawn."""
    kind: str
    by_hand: Callable[[Tensor, Tensor, float], Tensor]
    """The formula: activations, uniform numbers and a rate."""
    function: str = "bernoulli_"
    """What draws."""
    draws: int | None = None
    """How many of the results are dropped together: the number of units for the binomial error; None: not counted."""


def scaled(x: Tensor, u: Tensor, p: float) -> Tensor:
    return x * (u < 1 - p) / (1 - p)


def floored(x: Tensor, u: Tensor, p: float) -> Tensor:
    return x * (u >= p) / (1 - p)


def blocks(x: Tensor, u: Tensor, p: float) -> Tensor:
    keep = 1 - F.max_pool2d((u < p / 9).double(), 3, stride=1, padding=1)
    return x * keep * keep.numel() / keep.sum()


def inner_blocks(x: Tensor, u: Tensor, p: float) -> Tensor:
    centres = (u < p * 256 / (9 * 196)).double()
    return x * (1 - F.max_pool2d(F.pad(centres, [1] * 4), 3, stride=1, padding=1))


def gaussian(x: Tensor, u: Tensor, p: float) -> Tensor:
    z = torch.tensor([NormalDist().inv_cdf(v) for v in (u + 0.5**33).flatten().tolist()], dtype=torch.float64)
    return x * (1 + z.view(u.shape) * math.sqrt(p / (1 - p)))


FAMILIES = {
    "DropPath": Family(lambda: ops.DropPath(0.2), X, (3000, 1), "residual", scaled, draws=3000),
    "floored DropPath": Family(lambda: ops.FlooredDropPath(0.2), X, (3000, 1), "residual", floored, "rand", 3000),
    "StochasticDepth row": Family(
        lambda: ops.StochasticDepth(0.2, "row"), X, (3000, 1), "residual", scaled, draws=3000
    ),
    "StochasticDepth batch": Family(lambda: ops.StochasticDepth(0.2, "batch"), X, (1, 1), "residual", scaled),
    "DropBlock": Family(lambda: ops.DropBlock(0.2), IMAGES, tuple(IMAGES.shape), "conv", blocks, "rand_like"),
    "inner DropBlock": Family(lambda: ops.InnerDropBlock(0.2), IMAGES, (8, 5, 14, 14), "conv", inner_blocks),
    "GaussianDropout": Family(lambda: ops.GaussianDropout(0.2), X[:100], (100, 4), "input", gaussian, "randn_like"),
    "LockedDropout": Family(ops.LockedDropout, STEPS, (1, 60, 50), "rnn", scaled, draws=3000),
    "ZoneOut": Family(lambda: ops.ZoneOut(0.2), X, (3000, 4), "rnn", lambda x, u, p: x * (u >= p), draws=12000),
    "DropConnect": Family(
        lambda: ops.DropConnect(0.2),
        torch.ones(1, 40, dtype=torch.float64),
        (40, 40),
        "input",
        lambda x, u, p: x @ (torch.eye(40, dtype=torch.float64) * (u < 1 - p) / (1 - p)),
        "bernoulli",
        40,
    ),
}
NAMED = pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))


def run_of(family: Family) -> tuple[nn.Module, Callable[[], Tensor]]:
    model = ops.Holder(family.make())
    return model, lambda: model(family.x)


def uniform(family: Family, seed: int, step: int) -> Tensor:
    bits = SiteBits().draw(seed, f"op~{family.function}", step, 2 * math.prod(family.mask))
    return numbers_of(torch.from_numpy(bits).view(*family.mask, 2)) / 2**32


@NAMED
def test_it_is_a_site(family: Family) -> None:
    model, run = run_of(family)
    (site,) = dropout_sites(model, run)
    assert (site.name, site.kind, site.controllable) == ("op", family.kind, True)
    assert site.rate == (0.5 if isinstance(model.op, ops.LockedDropout) else 0.2)


@NAMED
@given(rate=st.floats(0.01, 0.9), seed=st.integers(0, 2**31 - 1), step=st.integers(0, 2**40))
@settings(max_examples=8, deadline=None)
def test_it_equals_its_formula(family: Family, rate: float, seed: int, step: int) -> None:
    model, run = run_of(family)
    u = uniform(family, seed, step)
    expected = family.by_hand(family.x, u, rate)
    assert torch.allclose(alone(model, {"op": rate}, run, seed=seed, step=step), expected, rtol=1e-6, atol=1e-6)


@NAMED
@pytest.mark.parametrize("rate", [0.05, 0.3, 0.8])
def test_the_share_of_drops_is_the_rate(family: Family, rate: float) -> None:
    model, run = run_of(family)
    if family.draws is not None:
        error = 5 * math.sqrt(rate * (1 - rate) / family.draws)
        assert share(alone(model, {"op": rate}, run)) == pytest.approx(rate, abs=error + 2e-5)
    elif family.mask == (1, 1):
        dropped = [float((alone(model, {"op": rate}, run, step=step) == 0).all()) for step in range(400)]
        assert sum(dropped) / 400 == pytest.approx(rate, abs=5 * math.sqrt(rate * (1 - rate) / 400))
    else:
        out = alone(model, {"op": rate}, run) / family.x
        assert not torch.equal(out, torch.ones_like(out))


@NAMED
def test_masks_differ_between_seeds_and_steps_and_repeat(family: Family) -> None:
    model, run = run_of(family)
    many = [[alone(model, {"op": 0.5}, run, seed=seed, step=step) for step in range(8)] for seed in (1, 2)]
    assert torch.equal(many[0][3], alone(model, {"op": 0.5}, run, seed=1, step=3))
    assert any(not torch.equal(many[0][0], other) for other in many[0][1:])
    assert any(not torch.equal(a, b) for a, b in zip(*many, strict=True))


@NAMED
def test_rows_equal_sequential_trials(family: Family) -> None:
    model, run = run_of(family)
    rates, seeds, steps = [{"op": rate} for rate in (0.0, 0.3, 0.8)], [1, 2, 2], [0, 4, 5]
    rows = stacked(model, rates, seeds, steps, run)
    for row in range(3):
        single = alone(model, rates[row], run, seed=seeds[row], step=steps[row])
        assert torch.allclose(rows[row], single, rtol=0, atol=1e-12)


@NAMED
def test_arm_none_drops_nothing_and_leaves_no_trace(family: Family) -> None:
    model, run = run_of(family)
    before = dict(vars(model.op))
    undropped = model.eval()(family.x)
    model.train()
    assert torch.allclose(alone(model, {}, run, off=True), undropped, rtol=0, atol=1e-12)
    assert torch.allclose(alone(model, {"op": 0.0}, run), undropped, rtol=0, atol=1e-12)
    assert vars(model.op) == before


@NAMED
def test_set_rates_sets_it(family: Family) -> None:
    model, run = run_of(family)
    before = dropout_sites(model, run)[0].rate
    with dropsearch.set_rates(model, {"op": 0.65}):
        assert dropout_sites(model, run)[0].rate == 0.65
    assert dropout_sites(model, run)[0].rate == before


def blocks_at(seeds: Tensor) -> Tensor:
    """Return how many of the places of a seed drop each unit, where a seed drops a square of three by three."""
    return F.conv2d(seeds, torch.ones(1, 1, 3, 3, dtype=torch.float64), padding=1)


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("inner", [False, True])
def test_the_share_of_units_that_blocks_drop(rate: float, inner: bool) -> None:
    x = torch.ones(60, 20, 16, 16, dtype=torch.float64)
    model = ops.Holder(ops.InnerDropBlock(0.2) if inner else ops.DropBlock(0.2))
    places = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    places[..., 1:15, 1:15] = 1
    chance = rate * 256 / (9 * 196) if inner else rate / 9
    expected = 1 - (1 - chance) ** blocks_at(places if inner else torch.ones_like(places))[0, 0]
    found = (alone(model, {"op": rate}, lambda: model(x)) == 0).double()
    assert float(found.mean()) == pytest.approx(float(expected.mean()), abs=5 * math.sqrt(9 * 0.25 / found.numel()))
    one = 5 * torch.sqrt(expected * (1 - expected) / 1200) + 1e-4  # each unit of its own, over the batch and channels
    assert bool(((found.mean((0, 1)) - expected).abs() <= one).all())
    middle = 1 - (1 - rate / 9) ** 9
    assert inner or float(found[..., 5:11, 5:11].mean()) == pytest.approx(middle, abs=0.01)


class Deep(nn.Module):
    """Two operations of one form, one of them twice, and a dropout inside a module that skips."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = ops.DropPath(0.1), ops.FlooredDropPath(0.3)
        self.masks: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.masks = [self.first(x), self.first(x), self.second(x)]
        return x


def test_masks_differ_between_sites_and_calls() -> None:
    model = Deep()
    assert [site.name for site in dropout_sites(model, lambda: model(X))] == ["first", "second"]
    alone(model, {"first": 0.5, "second": 0.5}, lambda: model(X))
    one, two, three = ((mask == 0)[:, 0] for mask in model.masks)
    assert not torch.equal(one, two)
    assert not torch.equal(one, three)


def test_edges_of_a_graph_are_dropped_at_the_rate() -> None:
    model, edges = ops.Graph(), torch.randint(100, (2, 20000))
    (site,) = dropout_sites(model, lambda: model(edges))
    assert (site.name, site.kind, site.rate, site.controllable) == ("model", "input", 0.2, True)
    for rate in (0.0, 0.1, 0.7):
        dropped = share(alone(model, {"model": rate}, lambda: model(edges)))
        assert dropped == pytest.approx(rate, abs=5 * math.sqrt(rate * (1 - rate) / 20000))
    assert share(alone(model, {}, lambda: model(edges), off=True)) == 0


@pytest.mark.parametrize(("of_config", "name"), [(False, "op:layerdrop"), (True, "op:config.layerdrop")])
def test_layers_are_skipped_at_the_rate(of_config: bool, name: str) -> None:
    model, x = ops.Holder(ops.LayerDropping(0.1, of_config)), torch.randn(2, 4)
    (site,) = dropout_sites(model, lambda: model(x))
    assert (site.name, site.kind, site.rate, site.activations) == (name, "residual", 0.1, 400)
    for rate in (0.0, 0.4, 0.9):
        alone(model, {name: rate}, lambda: model(x))
        assert 1 - model.op.ran / 400 == pytest.approx(rate, abs=5 * math.sqrt(rate * (1 - rate) / 400))
    alone(model, {}, lambda: model(x), off=True)
    assert model.op.ran == 400
    with dropsearch.set_rates(model, {name: 0.7}):
        assert dropout_sites(model, lambda: model(x))[0].rate == 0.7


def test_layers_that_are_skipped_at_rate_zero_name_the_rate_to_set() -> None:
    model = ops.Holder(ops.LayerDropping(0.0))
    (site,) = dropout_sites(model, lambda: model(torch.randn(2, 4)))
    assert not site.controllable
    assert "set op.layerdrop above 0" in site.reason


def test_monte_carlo_dropout_and_lora_are_sites() -> None:
    drop, lora, x = ops.MonteCarloDropout(0.3), ops.LoraLinear(0.1), torch.ones(2000, 6)
    assert [site.name for site in dropout_sites(lora, lambda: lora(x))] == ["lora_dropout.default"]
    model = ops.Holder(drop).eval()
    drop.sampling = True
    assert share(alone(model, {"op": 0.6}, lambda: model(x))) == pytest.approx(0.6, abs=0.03)
    assert share(alone(model, {}, lambda: model(x), off=True)) == 0


def test_a_frozen_operation_is_named() -> None:
    model = ops.Holder(ops.FlooredDropPath(0.3))
    model.op.eval()
    (site,) = dropout_sites(model, lambda: model(X))
    assert not site.controllable
    assert "stays in eval mode" in site.reason


def test_an_error_in_the_middle_puts_the_rate_back() -> None:
    model = ops.Holder(ops.GaussianDropout(0.3))
    with pytest.raises(TypeError):
        alone(model, {"op": 0.8}, lambda: model("no tensor"))
    assert model.op.p == 0.3
    assert share(alone(model, {"op": 0.0}, lambda: model(X))) == 0


# -- what users register


def shake(x: Tensor, strength: float, training: bool) -> Tensor:
    return x * (torch.rand(len(x), 1) >= strength) / (1 - strength) if training else x


class Shaking(nn.Module):
    """Calls a function whose name says nothing, at a rate in its code."""

    def forward(self, x: Tensor) -> Tensor:
        return shake(x, 0.25, self.training)


class Fading(nn.Module):
    """A block that fades what it adds, at a rate whose name says nothing."""

    def __init__(self, strength: float = 0.25) -> None:
        super().__init__()
        self.strength, self.layer, self.drop = strength, nn.Linear(4, 4).double(), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.rand(len(x), 1) >= self.strength if self.training else torch.ones(len(x), 1)
        return x + self.drop(self.layer(x)) * mask


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_code, "_registered", [])
    dropsearch.register_op(shake, rate="strength", kind="residual")
    dropsearch.register_op(Fading, rate="strength")


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("make", "site", "kind"), [(Shaking, "model", "residual"), (Fading, "model:strength", "hidden")]
)
def test_what_users_register_is_a_site(make: type[nn.Module], site: str, kind: str) -> None:
    model = make()
    run = lambda: model(X)  # noqa: E731
    found = {each.name: each for each in dropout_sites(model, run)}
    assert (found[site].rate, found[site].controllable) == (0.25, True)
    rates = [{**dict.fromkeys(found, 0.0), site: rate} for rate in (0.4, 0.1)]
    rows = stacked(model, rates, [1, 1], [0, 1], run)
    for row in range(2):
        assert torch.allclose(rows[row], alone(model, rates[row], run, step=row), rtol=0, atol=1e-12)
    changed = rows[0] == (0 if make is Shaking else X)
    assert float(changed.all(-1).double().mean()) == pytest.approx(0.4, abs=0.05)


@pytest.mark.usefixtures("registered")
def test_without_a_control_they_run_as_they_were() -> None:
    model = Shaking()
    torch.manual_seed(0)
    before = model(X)
    dropout_sites(model, lambda: model(X))
    alone(model, {"model": 0.9}, lambda: model(X))
    torch.manual_seed(0)
    assert torch.equal(model(X), before)


def test_until_it_is_registered_it_is_named() -> None:
    (site,) = dropout_sites(Shaking(), lambda: Shaking()(X)) or (None,)
    model = Shaking()
    (site,) = dropout_sites(model, lambda: model(X))
    assert not site.controllable
    assert "dropsearch.register_op(" in site.reason


@pytest.mark.parametrize(
    ("operation", "options", "message"),
    [
        (shake, {"rate": "strenght"}, r'rate must name an argument of shake, got "strenght" \(did you mean "strength"'),
        (Fading, {"rate": "p"}, 'rate must name an attribute that Fading reads, got "p"'),
        (shake, {"rate": "strength", "kind": "residue"}, r'kind must be one of input, .*, got "residue"'),
        (len, {"rate": "p"}, "register_op needs a subclass of nn.Module or a plain function"),
        (nn.Linear(2, 2), {"rate": "p"}, "register_op needs a subclass of nn.Module or a plain function"),
    ],
)
def test_what_cannot_be_registered_is_one_line(operation: Any, options: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        dropsearch.register_op(operation, **options)
    assert "\n" not in str(caught.value)


def test_a_scope_puts_numbers_back_in_reverse() -> None:
    part = ops.GaussianDropout(0.2)
    scope = Scope("op", 1, [(part, "p", 0.2, 0.5), (part, "p", 0.5, 0.7)])
    scope.enter()
    assert part.p == 0.7
    scope.leave()
    assert part.p == 0.2
