"""Sites are found and named wherever a model drops."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dropsearch.core.records.arms import KINDS, TYPICAL_BANDS, typical_rate, typical_rates
from dropsearch.dropout.row_control import RowBits, RowDropoutControl, mask_shapes, row_rates
from dropsearch.dropout.site_kinds import guess_kind
from dropsearch.dropout.sites import dropout_sites
from dropsearch.dropout.trial_control import TrialControl


class Mixed(nn.Module):
    """Modules, bare calls, a module used twice, attention: as users write them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 8)
        self.drop = nn.Dropout(0.3)
        self.attend = nn.MultiheadAttention(8, 2, dropout=0.2, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.dropout(x, 0.1, self.training)
        x = self.drop(self.drop(self.body(x)).relu_())
        x = self.attend(x, x, x, need_weights=False)[0]
        return self.encoder(self.attend(x, x, x)[0])


SITES = ["model", "drop", "attend"]
ENCODER = ["encoder.self_attn", "encoder.dropout1", "encoder.dropout", "encoder.dropout2"]


def test_every_place_that_drops_is_listed_once_in_the_order_of_the_forward_pass() -> None:
    model = Mixed()
    sites = dropout_sites(model, lambda: model(torch.randn(4, 5, 8)))
    assert [site.name for site in sites] == [*SITES, *ENCODER]
    assert [site.rate for site in sites[:3]] == [0.1, 0.3, 0.2]
    assert [site.activations for site in sites[:3]] == [40, 80, 75]


def test_calls_are_separate_sites_on_request() -> None:
    model = Mixed()
    sites = dropout_sites(model, lambda: model(torch.randn(4, 5, 8)), per_call=["dr*"])
    assert [site.name for site in sites] == ["model", "drop", "drop@2", "attend", *ENCODER]


def test_a_model_in_eval_mode_has_no_sites() -> None:
    model = Mixed().eval()
    assert dropout_sites(model, lambda: model(torch.randn(4, 5, 8))) == ()


@pytest.mark.parametrize("site", [*SITES, *ENCODER])
def test_each_site_can_be_controlled(site: str) -> None:
    model, x = Mixed(), torch.randn(4, 5, 8)
    off = dict.fromkeys([*SITES, *ENCODER], 0.0)

    def output(rates: dict[str, float]) -> torch.Tensor:
        control = TrialControl(model, rates, seed=0)
        with control.watching(), control.training_step(0):
            return model(x)

    assert torch.equal(output(off), output(off))
    assert not torch.allclose(output(off), output({**off, site: 0.9}))


def test_a_site_set_to_zero_runs_as_if_it_were_not_there() -> None:
    model, x = Mixed(), torch.randn(4, 5, 8)
    control = TrialControl(model, dict.fromkeys([*SITES, *ENCODER], 0.0), seed=0)
    with control.watching(), control.training_step(0):
        controlled = model(x)
    assert torch.allclose(controlled, model.eval()(x), atol=1e-5)


@pytest.mark.parametrize("need_weights", [True, False])
def test_attention_at_rate_zero_takes_a_rate_sequentially_and_vectorized(need_weights: bool) -> None:
    model, x = nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(3, 5, 8)

    def run(x: torch.Tensor) -> torch.Tensor:
        return model(x, x, x, need_weights=need_weights)[0]

    def alone(rate: float, seed: int) -> torch.Tensor:
        control = TrialControl(model, {"model": rate}, seed)
        with control.watching(), control.training_step(0):
            return run(x)

    assert torch.allclose(alone(0.0, 1), run(x), atol=1e-6)
    assert not torch.allclose(alone(0.5, 1), run(x), atol=1e-3)
    bits = dict(RowBits(mask_shapes(model, ["model"], lambda: run(x)), 2, x.device).draw([1, 2], [0, 0]))
    control = RowDropoutControl(model)

    def row(rates: Any, bits: Any) -> torch.Tensor:
        control.load(rates, bits)
        with control.step():
            return run(x)

    with control.watching():
        rows = torch.func.vmap(row)(row_rates([{"model": 0.5}, {"model": 0.0}], x.dtype, x.device), bits)
    assert torch.allclose(rows, torch.stack([alone(0.5, 1), alone(0.0, 2)]), atol=1e-6)


def test_no_trace_of_the_control_is_left_on_the_model() -> None:
    model = Mixed()
    dropout_sites(model, lambda: model(torch.randn(4, 5, 8)))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_an_exception_in_the_model_leaves_the_control_usable() -> None:
    model = Mixed()
    control = TrialControl(model, {}, seed=0)
    with control.watching():
        with pytest.raises(RuntimeError), control.training_step(0):
            model(torch.randn(4, 5, 7))
        with control.training_step(0):
            first = model(torch.ones(4, 5, 8))
        with control.training_step(0):
            assert torch.equal(first, model(torch.ones(4, 5, 8)))


@pytest.mark.parametrize(
    ("site", "weights", "before", "kind"),
    [
        ("net.input.dropout", False, "", "input"),
        ("net.hidden2.dropout", False, "hidden", "hidden"),
        ("features.3", False, "conv", "conv"),
        ("anything", True, "hidden", "attention"),
        ("drop", False, "", "input"),
        ("layer1.attention_residual.dropout", False, "hidden", "residual"),
        ("embedding.dropout", False, "hidden", "embedding"),
        ("top", False, "rnn", "rnn"),
    ],
)
def test_the_kind_is_guessed_from_the_function_the_name_and_the_layer_before(
    site: str, weights: bool, before: str, kind: str
) -> None:
    assert guess_kind(site, before, weights=weights) == kind


class OwnProduct(nn.Module):
    """A linear layer of somebody's own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(x, x, self.weight)


class Attending(nn.Module):
    """A block whose branch is dropped behind a layer of one's own, in a part with the name of attention."""

    def __init__(self, depth: nn.Module) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.attention = nn.Sequential(OwnProduct(), nn.Dropout(0.1))
        self.depth = depth
        self.out = nn.Sequential(OwnProduct(), nn.Dropout(0.1))

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.embed(words)
        return self.out(x + self.depth(self.attention(x)))


class DropPath(nn.Module):
    """Stochastic depth, which draws its own mask."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x.new_empty((x.shape[0], 1)).bernoulli_(0.8).div_(0.8)


@pytest.mark.parametrize("depth", [nn.Identity(), DropPath()])
def test_a_branch_that_ends_in_a_sum_is_residual(
    depth: nn.Module,
) -> None:
    model = Attending(depth)
    sites = dropout_sites(model, lambda: model(torch.arange(5)))
    assert {site.name: site.kind for site in sites if site.controllable} == {
        "attention.1": "residual",
        "out.1": "hidden",
    }


def test_typical_rates_stand_inside_their_bands() -> None:
    assert set(TYPICAL_BANDS) == set(KINDS)
    assert all(low <= typical_rate(kind) <= high for kind, (low, high) in TYPICAL_BANDS.items())


def test_typical_rates_go_by_the_kind_of_the_site() -> None:
    model = Mixed()
    sites = dropout_sites(model, lambda: model(torch.randn(4, 5, 8)))
    assert typical_rates(sites)["attend"] == typical_rate("attention")


class Branch(nn.Module):
    """A residual branch that ends in a dropout, and attention whose weights are dropped behind a softmax by groups."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drop = nn.Linear(4, 4), nn.Dropout(0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.drop(self.layer(x))
        weights = (x @ x.T).exp()
        weights = weights / weights.sum(1, keepdim=True)
        return F.dropout(weights, 0.2, self.training) @ x


def noted(module: nn.Module, _: Any, output: torch.Tensor) -> None:
    module.seen = torch.softmax(output.detach() * 2, -1) @ torch.ones(4, 1)


def test_kinds_of_a_branch_and_of_weights_that_are_normalised_by_groups() -> None:
    model = Branch()
    sites = dropout_sites(model, lambda: model(torch.randn(3, 4)))
    assert {site.name: site.kind for site in sites} == {"drop": "residual", "model": "attention"}


@pytest.mark.parametrize("hook", [noted, lambda *given: noted(*given)])
def test_a_users_hook_changes_no_kind(hook: Any) -> None:
    model = Branch()
    for part in model.modules():
        part.register_forward_hook(hook)
    sites = dropout_sites(model, lambda: model(torch.randn(3, 4)))
    assert {site.name: site.kind for site in sites} == {"drop": "residual", "model": "attention"}
