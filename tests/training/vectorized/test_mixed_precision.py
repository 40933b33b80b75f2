"""Vectorized mixed precision equals that of plain Lightning within the precision of bfloat16."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dropsearch.training.planning.equivalence import check_equivalence
from dropsearch.training.protocols import Engine, TrainerSettings
from dropsearch.training.sequential import SequentialEngine
from dropsearch.training.vectorized.engine import VectorizedEngine
from dropsearch.training.vectorized.vmap_modes import EXACT, PRODUCTS, MixedPrecision
from tests.training.conftest import Queue, make_factory, make_source, make_specs


def test_products_are_bfloat16_norms_and_losses_float32() -> None:
    x, weight = torch.randn(4, 8), torch.randn(3, 8, requires_grad=True)
    with MixedPrecision():
        product = F.linear(x, weight)
        shares, normed = torch.softmax(product, -1), F.layer_norm(product, (3,))
        loss = F.cross_entropy(product, torch.tensor([0, 1, 2, 0]))
    assert [t.dtype for t in (product, shares, normed, loss)] == [torch.bfloat16, *3 * [torch.float32]]
    loss.backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32


def test_lists_are_disjoint() -> None:
    assert not PRODUCTS & EXACT


@pytest.mark.parametrize(
    ("model", "norm"), [("mlp", "batch"), ("cnn", "batch"), ("rnn", "layer"), ("transformer", "layer")]
)
def test_vectorized_bf16_is_close_to_lightning(model: str, norm: str) -> None:
    specs, factory, source = make_specs(model, 3), make_factory(model, norm), make_source(model)
    exact, mixed = (TrainerSettings(2, "cpu", precision) for precision in ("32-true", "bf16-mixed"))

    def curves(engine: Engine) -> list[Tensor]:
        feed = Queue(list(specs))
        engine.run(feed)
        return [torch.tensor([point.val_loss for point in feed.results[n].curve]) for n in range(3)]

    ours = curves(VectorizedEngine(factory, source, mixed, 2))
    for here, alone in zip(ours, curves(SequentialEngine(factory, source, mixed)), strict=True):
        assert here.shape == (2,)
        assert torch.allclose(here, alone, rtol=0.03, atol=0.03)
    for here, other in zip(ours, curves(VectorizedEngine(factory, source, exact, 2)), strict=True):
        assert not torch.equal(here, other), "nothing was computed in bfloat16"


def test_equivalence_check_accepts_bf16() -> None:
    first, second = make_specs("mlp", 2)
    assert (
        check_equivalence(
            make_factory("mlp"), make_source("mlp"), TrainerSettings(1, "cpu", "bf16-mixed"), (first, second)
        )
        == ""
    )
