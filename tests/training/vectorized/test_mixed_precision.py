"""Mixed precision in an array is that of plain Lightning, to the coarseness of bfloat16."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dropsearch.training.planning.equivalence import proof
from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.sequential import SequentialEngine
from dropsearch.training.vectorized.engine import VectorizedEngine
from dropsearch.training.vectorized.mixed_precision import EXACT, PRODUCTS, MixedPrecision
from tests.training.conftest import Queue, make_factory, make_source, make_specs


def test_products_are_coarse_and_norms_and_losses_are_not() -> None:
    x, weight = torch.randn(4, 8), torch.randn(3, 8, requires_grad=True)
    with MixedPrecision():
        product = F.linear(x, weight)
        shares, normed = torch.softmax(product, -1), F.layer_norm(product, (3,))
        loss = F.cross_entropy(product, torch.tensor([0, 1, 2, 0]))
    assert [t.dtype for t in (product, shares, normed, loss)] == [torch.bfloat16, *3 * [torch.float32]]
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def test_no_function_is_in_both_lists() -> None:
    assert not PRODUCTS & EXACT


@pytest.mark.parametrize(
    ("model", "norm"), [("mlp", "batch"), ("cnn", "batch"), ("rnn", "layer"), ("transformer", "layer")]
)
def test_an_array_in_bf16_follows_lightnings_own(model: str, norm: str) -> None:
    specs, source = make_specs(model, 3), make_source(model)
    curves: dict[str, dict[int, Tensor]] = {}
    for precision in ("32-true", "bf16-mixed"):
        settings = TrainerSettings(4, "cpu", precision)
        for kind in (SequentialEngine, VectorizedEngine):
            feed = Queue(list(specs))
            engine = kind(make_factory(model, norm), source, settings, *([2] if kind is VectorizedEngine else []))
            engine.run(feed)
            losses = {n: torch.tensor([m.val_loss for m in r.curve]) for n, r in feed.results.items()}
            curves[f"{kind.__name__} {precision}"] = losses
    for spec in specs:
        ours, alone = (curves[f"{kind} bf16-mixed"][spec.number] for kind in ("VectorizedEngine", "SequentialEngine"))
        exact = curves["VectorizedEngine 32-true"][spec.number]
        assert ours.shape == (4,)
        assert torch.allclose(ours, alone, rtol=0.03, atol=0.03)
        assert not torch.equal(ours, exact), "nothing was coarse"


def test_the_proof_lets_bf16_into_an_array() -> None:
    first, second = make_specs("mlp", 2)
    assert (
        proof(make_factory("mlp"), make_source("mlp"), TrainerSettings(1, "cpu", "bf16-mixed"), (first, second)) == ""
    )
