"""Each distribution and random function of torch in a training step: equal numbers vectorized, or the true reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
import torch
import torch.distributions as D
import torch.nn.functional as F
from torch import Tensor, nn

from dropsearch.dropout import keyed_draws
from tests.training.vectorized.laws import Case
from tests.user_modules.data import Digits
from tests.user_modules.nets import LitNet

Draws = Mapping[str, Callable[[Tensor], Any]]
"""By name: what draws from logits, float64 `[batch, classes]`."""


def positive(x: Tensor) -> Tensor:
    return F.softplus(x) + 0.5


def share(value: float, x: Tensor) -> Tensor:
    return torch.tensor(value, dtype=x.dtype)


CONTINUOUS: Draws = {
    "Cauchy": lambda x: D.Cauchy(x, positive(x)),
    "GeneralizedPareto": lambda x: D.GeneralizedPareto(x, positive(x), torch.full_like(x, 0.1)),
    "Gumbel": lambda x: D.Gumbel(x, positive(x)),
    "HalfCauchy": lambda x: D.HalfCauchy(positive(x)),
    "HalfNormal": lambda x: D.HalfNormal(positive(x)),
    "Independent": lambda x: D.Independent(D.Normal(x, positive(x)), 1),
    "Laplace": lambda x: D.Laplace(x, positive(x)),
    "LogNormal": lambda x: D.LogNormal(0.1 * x, positive(x)),
    "LogisticNormal": lambda x: D.LogisticNormal(x, positive(x)),
    "LowRankMultivariateNormal": lambda x: D.LowRankMultivariateNormal(x, x[..., None].tanh(), positive(x)),
    "MixtureSameFamily": lambda x: D.MixtureSameFamily(D.Categorical(logits=x), D.Normal(x, positive(x))),
    "MultivariateNormal": lambda x: D.MultivariateNormal(x, scale_tril=torch.diag_embed(positive(x))),
    "Normal": lambda x: D.Normal(x, positive(x)),
    "TransformedDistribution": lambda x: D.TransformedDistribution(D.Normal(x, positive(x)), [D.SigmoidTransform()]),
    "Uniform": lambda x: D.Uniform(x, x + positive(x)),
    "VonMises": lambda x: D.VonMises(x, positive(x)),
}
GAMMAS: Draws = {
    "Beta": lambda x: D.Beta(positive(x), positive(-x)),
    "Chi2": lambda x: D.Chi2(positive(x)),
    "Dirichlet": lambda x: D.Dirichlet(positive(x)),
    "Exponential": lambda x: D.Exponential(positive(x)),
    "FisherSnedecor": lambda x: D.FisherSnedecor(positive(x) + 1, positive(x) + 1),
    "Gamma": lambda x: D.Gamma(positive(x), positive(x)),
    "InverseGamma": lambda x: D.InverseGamma(positive(x) + 1, positive(x)),
    "Kumaraswamy": lambda x: D.Kumaraswamy(positive(x), positive(x)),
    "LKJCholesky": lambda x: D.LKJCholesky(3, positive(x.mean())),
    "Pareto": lambda x: D.Pareto(positive(x), positive(x)),
    "StudentT": lambda x: D.StudentT(positive(x) + 1, x, positive(x)),
    "Weibull": lambda x: D.Weibull(positive(x), positive(x)),
}
DISCRETE: Draws = {
    "Bernoulli": lambda x: D.Bernoulli(logits=x),
    "Categorical": lambda x: D.Categorical(logits=x),
    "ContinuousBernoulli": lambda x: D.ContinuousBernoulli(logits=x),
    "Geometric": lambda x: D.Geometric(logits=x),
    "Multinomial": lambda x: D.Multinomial(4, logits=x),
    "OneHotCategorical": lambda x: D.OneHotCategorical(logits=x),
    "OneHotCategoricalStraightThrough": lambda x: D.OneHotCategoricalStraightThrough(logits=x),
    "RelaxedBernoulli": lambda x: D.RelaxedBernoulli(share(0.7, x), logits=x),
    "RelaxedOneHotCategorical": lambda x: D.RelaxedOneHotCategorical(share(0.7, x), logits=x),
}
FUNCTIONS: Draws = {
    "rand": lambda x: torch.rand(x.shape),
    "randn": lambda x: torch.randn(*x.shape),
    "rand_like": torch.rand_like,
    "randn_like": torch.randn_like,
    "randint": lambda x: torch.randint(3, x.shape),
    "randint_like": lambda x: torch.randint_like(x, 3),
    "randperm": lambda x: x[:, torch.randperm(x.shape[1])],
    "normal": lambda x: torch.normal(x, positive(x)),
    "bernoulli": lambda x: torch.bernoulli(torch.sigmoid(x)),
    "multinomial": lambda x: torch.multinomial(x.softmax(-1), 2),
    "gumbel_softmax": F.gumbel_softmax,
    "rrelu": lambda x: F.rrelu(x, training=True),
    "rrelu_": lambda x: F.rrelu_(x + 0, training=True),
    "_standard_gamma": lambda x: torch._standard_gamma(positive(x)),
    "_sample_dirichlet": lambda x: torch._sample_dirichlet(positive(x.detach())),
    "svd_lowrank": lambda x: torch.svd_lowrank(x, 2)[1],
    "SobolEngine": lambda x: torch.quasirandom.SobolEngine(2, scramble=True).draw(3),
}
FILLED: Draws = {
    "normal_": lambda x: torch.empty_like(x).normal_(),
    "uniform_": lambda x: x.new(x.shape).uniform_(),
    "exponential_": lambda x: torch.empty_like(x).exponential_(),
    "cauchy_": lambda x: torch.empty_like(x).cauchy_(),
    "geometric_": lambda x: torch.empty_like(x).geometric_(0.3),
    "log_normal_": lambda x: torch.empty_like(x).log_normal_(),
    "bernoulli_": lambda x: torch.empty_like(x).bernoulli_(torch.sigmoid(x.detach())),
    "random_": lambda x: torch.empty_like(x).random_(3),
    "a layer of the step": lambda x: nn.Embedding(3, 2).weight,
    "xavier_normal_": lambda x: nn.init.xavier_normal_(torch.empty(3, 3)),
    "orthogonal_": lambda x: nn.init.orthogonal_(torch.empty(3, 3)),
    "sparse_": lambda x: nn.init.sparse_(torch.empty(3, 3), 0.3),
    "scattered": lambda x: torch.zeros(12, dtype=x.dtype).scatter_add_(0, x.argmax(1), torch.ones_like(x[:, 0])),
    "indexed": lambda x: torch.eye(12, dtype=x.dtype).index_put_((x.argmax(1),), share(1, x)),
}
REFUSED: Draws = {
    "Binomial": lambda x: D.Binomial(3, logits=x),
    "NegativeBinomial": lambda x: D.NegativeBinomial(positive(x), logits=x),
    "Poisson": lambda x: D.Poisson(positive(x)),
    "kaiming_uniform_": lambda x: nn.Linear(3, 2).weight,
    "fractional_max_pool2d": lambda x: F.fractional_max_pool2d(x[None], 2, output_ratio=(0.5, 0.5)),
    "generator": lambda x: torch.rand(3, generator=torch.Generator().manual_seed(1)),
    "out": lambda x: torch.rand(3, out=torch.empty(3)),
}
REDRAWN = {
    "Wishart": lambda x: D.Wishart(share(4, x), covariance_matrix=torch.eye(3, dtype=x.dtype) * positive(x.mean())),
}
"""What is drawn again where a sample is singular, which a rounding decides."""
REASONS: Mapping[str, str] = {
    "Binomial": "torch draws by binomial",
    "NegativeBinomial": "torch draws by poisson",
    "Poisson": "torch draws by poisson",
    "kaiming_uniform_": "torch draws by kaiming_uniform_",
    "fractional_max_pool2d": "torch draws by fractional_max_pool2d",
    "generator": "rand draws from its own generator",
    "out": "rand draws into out=",
}


class Drawing(LitNet):
    """Adds to the loss what some calls draw."""

    draws: ClassVar[Draws] = {}

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        logits, loss = self(x), torch.zeros((), dtype=x.dtype)
        for draw in self.draws.values():
            drawn = draw(logits)
            if isinstance(drawn, D.Distribution):
                drawn = drawn.rsample() if drawn.has_rsample else drawn.sample()
            loss = loss + drawn.to(x.dtype).tanh().mean()
        return F.cross_entropy(logits, y) + loss


def reason(draws: Draws) -> str:
    """Return why a module with these calls trains sequentially."""
    return Case(type("Drawn", (Drawing,), {"draws": draws}), Digits(examples=128), epochs=1).reason()


@pytest.mark.parametrize("draws", [CONTINUOUS, GAMMAS, DISCRETE, FUNCTIONS, FILLED])
def test_draws_are_equal_in_rows(draws: Draws) -> None:
    assert reason(draws) == "", {name: reason({name: draw}) for name, draw in draws.items()}


@pytest.mark.filterwarnings("ignore:Singular sample detected")
def test_draws_until_a_value_fits_are_equal_in_rows_or_the_reason() -> None:
    found = reason(REDRAWN)
    assert not found or "the module creates tensors whose shape depends on values (test_random_functions.py:" in found


@pytest.mark.parametrize("name", REFUSED)
def test_true_reason_is_named_with_its_line(name: str) -> None:
    found = reason({name: REFUSED[name]})
    assert REASONS[name] in found
    assert re.search(r" \(test_random_functions.py:\d+\)$", found), found


def test_tables_are_complete() -> None:
    tested = {*CONTINUOUS, *GAMMAS, *DISCRETE, *FUNCTIONS, *FILLED, *REFUSED, *REDRAWN}
    kinds = (getattr(D, name) for name in D.__all__)
    concrete = {kind.__name__ for kind in kinds if isinstance(kind, type) and issubclass(kind, D.Distribution)}
    assert concrete - {"Distribution", "ExponentialFamily"} <= tested
    assert set(keyed_draws._READERS) <= tested
