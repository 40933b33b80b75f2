"""What a step draws from torch has torch's distribution, and is a function of the seed, the place and the step."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, distributions, nn
from torch.utils.checkpoint import checkpoint

from dropsearch._compat.row_values import sampled_under_vmap
from dropsearch.dropout.trial_control import TrialControl
from tests.dropout.rows import alone, stacked

N = 20_000
SHARES = torch.tensor([0.0, 0.2, 0.3, 0.5])


class Drawing(nn.Module):
    """Draws by one function."""

    def __init__(self, draw: Callable[[], Tensor]) -> None:
        super().__init__()
        self.draw = draw

    def forward(self) -> Tensor:
        return self.draw()


def drawn(draw: Callable[[], Tensor], seed: int = 1, step: int = 0) -> Tensor:
    module = Drawing(draw)
    return alone(module, {}, module, seed=seed, step=step)


CONTINUOUS = {
    "rand": (lambda: torch.rand(N), stats.uniform()),
    "rand float64": (lambda: torch.rand(N, dtype=torch.float64), stats.uniform()),
    "rand_like": (lambda: torch.rand_like(torch.empty(N)), stats.uniform()),
    "uniform_": (lambda: torch.empty(N).uniform_(-1, 3), stats.uniform(-1, 4)),
    "randn": (lambda: torch.randn(N), stats.norm()),
    "randn_like": (lambda: torch.randn_like(torch.empty(N, dtype=torch.float64)), stats.norm()),
    "normal_": (lambda: torch.empty(N).normal_(2, 0.5), stats.norm(2, 0.5)),
    "normal of tensors": (lambda: torch.normal(torch.ones(N), torch.full((N,), 2.0)), stats.norm(1, 2)),
    "normal of a size": (lambda: torch.normal(1.0, 2.0, (N,)), stats.norm(1, 2)),
    "log_normal_": (lambda: torch.empty(N).log_normal_(0, 0.5), stats.lognorm(0.5)),
    "exponential_": (lambda: torch.empty(N).exponential_(4), stats.expon(scale=0.25)),
    "cauchy_": (lambda: torch.empty(N).cauchy_(1, 2), stats.cauchy(1, 2)),
    "Normal": (lambda: distributions.Normal(1.0, 2.0).sample((N,)), stats.norm(1, 2)),
    "Laplace": (lambda: distributions.Laplace(torch.tensor(0.0), torch.tensor(1.0)).sample((N,)), stats.laplace()),
    "Gumbel": (lambda: distributions.Gumbel(torch.tensor(0.0), torch.tensor(1.0)).sample((N,)), stats.gumbel_r()),
    "Gamma": (lambda: distributions.Gamma(torch.tensor(2.5), torch.tensor(1.0)).sample((N,)), stats.gamma(2.5)),
    "Gamma below 1": (
        lambda: distributions.Gamma(torch.tensor(0.3, dtype=torch.float64), torch.tensor(1.0)).sample((N,)),
        stats.gamma(0.3),
    ),
    "Beta": (lambda: distributions.Beta(torch.tensor(0.4), torch.tensor(0.7)).sample((N,)), stats.beta(0.4, 0.7)),
    "StudentT": (lambda: distributions.StudentT(torch.tensor(5.0)).sample((N,)), stats.t(5)),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_numbers_have_their_distribution(name: str) -> None:
    draw, expected = CONTINUOUS[name]
    values = drawn(draw).double().numpy()
    assert stats.kstest(values, expected.cdf).pvalue > 1e-3
    if math.isfinite(expected.var()) and math.isfinite(expected.stats("k")):
        error = math.sqrt(expected.var() / N)
        assert values.mean() == pytest.approx(expected.mean(), abs=4 * error)
        spread = expected.var() * math.sqrt((float(expected.stats("k")) + 2) / N)
        assert values.var() == pytest.approx(expected.var(), abs=5 * spread)


DISCRETE = {
    "bernoulli": (lambda: torch.bernoulli(torch.full((N,), 0.3)), [0.7, 0.3]),
    "bernoulli_": (lambda: torch.empty(N).bernoulli_(0.05), [0.95, 0.05]),
    "bernoulli_ of a tensor": (lambda: torch.empty(N).bernoulli_(torch.full((N,), 0.6)), [0.4, 0.6]),
    "Bernoulli": (lambda: distributions.Bernoulli(torch.tensor(0.2)).sample((N,)), [0.8, 0.2]),
    "randint": (lambda: torch.randint(3, (N,)), [1 / 3] * 3),
    "randint between": (lambda: torch.randint(-1, 4, (N,)) + 1, [0.2] * 5),
    "randint_like": (lambda: torch.randint_like(torch.empty(N), 4), [0.25] * 4),
    "random_": (lambda: torch.empty(N, dtype=torch.int64).random_(2, 5) - 2, [1 / 3] * 3),
    "geometric_": (lambda: torch.empty(N).geometric_(0.5).clamp(max=4) - 1, [0.5, 0.25, 0.125, 0.125]),
    "multinomial": (lambda: torch.multinomial(SHARES, N, replacement=True), SHARES.tolist()),
    "multinomial without": (lambda: torch.multinomial(SHARES.expand(N, 4), 1)[:, 0], SHARES.tolist()),
    "Categorical": (lambda: distributions.Categorical(SHARES).sample((N,)), SHARES.tolist()),
    "gumbel_softmax": (
        lambda: F.gumbel_softmax(SHARES.log().clamp(min=-99).expand(N, 4), hard=True).argmax(1),
        SHARES.tolist(),
    ),
    "first of randperm": (lambda: torch.stack([torch.randperm(3) for _ in range(2000)])[:, 0], [1 / 3] * 3),
}


@pytest.mark.parametrize("name", DISCRETE)
def test_whole_numbers_have_their_shares(name: str) -> None:
    draw, shares = DISCRETE[name]
    counts = np.bincount(drawn(draw).long().numpy(), minlength=len(shares))
    present = np.asarray(shares) > 0
    assert counts[~present].sum() == 0
    expected = np.asarray(shares)[present] * counts.sum()
    assert stats.chisquare(counts[present], expected, sum_check=False).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_uniform_number_is_below_one(dtype: torch.dtype) -> None:
    values = drawn(lambda: torch.rand(200_000, dtype=dtype))
    assert values.dtype == dtype
    assert 0 <= float(values.min()) <= float(values.max()) < 1


def test_a_permutation_holds_each_number_once() -> None:
    assert drawn(lambda: torch.randperm(1000)).sort().values.tolist() == list(range(1000))


def test_a_sample_without_replacement_holds_none_twice() -> None:
    rows = drawn(lambda: torch.multinomial(SHARES.expand(500, 4), 3)).tolist()
    assert {tuple(sorted(row)) for row in rows} == {(1, 2, 3)}


def test_slopes_of_rrelu_are_uniform() -> None:
    values = drawn(lambda: F.rrelu(-torch.ones(N), 0.25, 0.5, training=True)).double().numpy()
    assert stats.kstest(-values, stats.uniform(0.25, 0.25).cdf).pvalue > 1e-3


class Places(nn.Module):
    """Draws twice in its own forward, and once in each of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = (Drawing(lambda: torch.randn(N)) for _ in range(2))

    def forward(self) -> Tensor:
        return torch.stack([torch.randn(N), torch.randn(N), self.one(), self.other(), torch.empty(N).normal_()])


def test_numbers_of_different_places_seeds_and_steps_are_independent() -> None:
    model = Places()
    fields = [alone(model, {}, model, seed=seed, step=step) for seed, step in ((1, 0), (1, 1), (2, 0), (2, 2**33))]
    values = torch.cat(fields).double().numpy()
    correlation = np.corrcoef(values) - np.eye(len(values))
    assert np.abs(correlation).max() < 5 / math.sqrt(N)


def test_the_gradient_of_a_gamma_number_is_implicit() -> None:
    alpha = torch.full((N,), 2.0, dtype=torch.float64, requires_grad=True)
    values = drawn(lambda: distributions.Gamma(alpha, torch.ones(())).rsample())
    values.sum().backward()
    assert alpha.grad is not None
    assert float(alpha.grad.mean()) == pytest.approx(1.0, abs=0.03)  # the mean of the distribution is alpha


MIXED: dict[str, Callable[[], Tensor]] = {
    **{name: draw for name, (draw, _) in {**CONTINUOUS, **DISCRETE}.items() if "randperm" not in name},
    "randperm": lambda: torch.randperm(50),
    "rrelu": lambda: F.rrelu(-torch.ones(50), training=True),
    "MultivariateNormal": lambda: distributions.MultivariateNormal(torch.zeros(3), torch.eye(3)).rsample(),
    "Dirichlet": lambda: distributions.Dirichlet(torch.ones(4)).sample(),
}


@pytest.mark.parametrize("name", MIXED)
def test_rows_draw_what_trials_draw(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "N", 50)
    module = Drawing(MIXED[name])
    seeds, steps = [1, 2, 2], [0, 4, 5]
    with warnings.catch_warnings(), sampled_under_vmap():
        warnings.filterwarnings("ignore", message=".*performance drop.*")
        rows = stacked(module, [{}] * 3, seeds, steps, module)
    for row, seed, step in zip(rows, seeds, steps, strict=True):
        assert torch.allclose(row.double(), alone(module, {}, module, seed=seed, step=step).double(), atol=1e-12)


@given(seed=st.integers(0, 2**31 - 1), step=st.integers(0, 2**40), low=st.floats(-5, 5), width=st.floats(0.1, 9))
@settings(max_examples=20, deadline=None)
def test_a_uniform_number_is_the_affine_image_of_rand(seed: int, step: int, low: float, width: float) -> None:
    def both() -> Tensor:
        return torch.empty(9, dtype=torch.float64).uniform_(low, low + width)

    bits = TrialControl(nn.Module(), {}, seed).seeded
    bits.begin("", step)
    high, rest = (bits.bits("model~uniform_", torch.Size((9, 2)), torch.device("cpu")).double() + 32768).unbind(-1)
    expected = low + width * (high * 65536 + rest) / 2**32
    assert torch.allclose(drawn(both, seed, step), expected, rtol=0, atol=1e-12)


class Recomputed(nn.Module):
    """Draws in a part of the forward that the backward computes again."""

    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.reentrant = reentrant

    def part(self, x: Tensor) -> Tensor:
        return x * torch.randn_like(x)

    def forward(self, x: Tensor) -> Tensor:
        if self.reentrant is None:
            return self.part(x)
        return checkpoint(self.part, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_computes_the_same_numbers_again(reentrant: bool) -> None:
    found: list[Any] = []
    for kind in (None, reentrant):
        x, model = torch.ones(7, requires_grad=True), Recomputed(kind)
        control = TrialControl(model, {}, 1)
        with control.whole_trial():
            with control.training_step(3):
                loss = model(x).sum()
            loss.backward()
        found.append(x.grad)
    assert torch.equal(found[0], found[1])


BY_NAME = {
    "rand_like": lambda: torch.rand_like(input=torch.ones(6)),
    "bernoulli": lambda: torch.bernoulli(input=torch.full((40,), 0.5)),
    "multinomial": lambda: torch.multinomial(input=torch.ones(40), num_samples=9),
    "init.normal_": lambda: nn.init.normal_(tensor=torch.empty(6), mean=3.0),
    "init.uniform_": lambda: nn.init.uniform_(torch.empty(6), b=2.0),
    "init.xavier_uniform_": lambda: nn.init.xavier_uniform_(torch.empty(2, 3)),
    "gumbel_softmax": lambda: F.gumbel_softmax(logits=torch.ones(6)),
    "rand": lambda: torch.rand(size=(3,), out=None),
}


@pytest.mark.parametrize("name", BY_NAME)
def test_arguments_may_be_given_by_name(name: str) -> None:
    one, again, other = (drawn(BY_NAME[name], step=step) for step in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("call", [lambda: nn.init.kaiming_uniform_(torch.empty(2, 3)), lambda: torch.rand(3, pin=1)])
def test_calls_that_cannot_be_keyed_are_left_to_torch(call: Callable[[], Tensor]) -> None:
    try:
        expected = call().shape
    except TypeError:
        with pytest.raises(TypeError, match="pin"):
            drawn(call)
    else:
        assert drawn(call).shape == expected
