"""Row-by-row convolutions equal one grouped convolution of all rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vmap

from dropsearch.training.protocols import TrainerSettings
from dropsearch.training.vectorized.engine import VectorizedEngine
from dropsearch.training.vectorized.vmap_modes import RowConvolutions
from tests.training.conftest import Queue, make_factory, make_source, make_specs


@pytest.mark.parametrize(
    ("convolve", "sides", "options"),
    [
        (F.conv1d, 1, {"stride": 2}),
        (F.conv2d, 2, {"padding": "same", "groups": 2}),
        (F.conv2d, 2, {"padding": (1, 2), "stride": (2, 1)}),
        (F.conv3d, 3, {"dilation": 2}),
        (F.conv3d, 3, {"padding": 1}),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_equal_grouped(convolve: Any, sides: int, options: dict[str, Any], bias: bool) -> None:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    x, weight = draw(3, 2, 4, *[7] * sides), draw(3, 6, 4 // options.get("groups", 1), *[3] * sides)
    biases = draw(3, 6) if bias else None

    def step(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return convolve(x, weight, bias=bias, **options).tanh().sum()

    def by_row(*given: Any) -> Tensor:
        with RowConvolutions():
            return step(*given)

    given = [part for part in (x, weight, biases) if part is not None]
    answers = []
    for function in (step, by_row):
        losses = vmap(function, in_dims=(0, 0, 0 if bias else None))(x, weight, biases)
        answers.append((losses, *torch.autograd.grad(losses.sum(), given)))
    for expected, got in zip(*answers, strict=True):
        assert torch.allclose(got, expected, rtol=0, atol=1e-12)


def test_training_equals_grouped() -> None:
    curves = []
    for convolutions in ("grouped", "by row"):
        settings = TrainerSettings(3, "cpu", "64-true", convolutions=convolutions)  # type: ignore[arg-type]
        feed = Queue(make_specs("cnn", 3))
        factory, source = make_factory("cnn", "batch", torch.float64), make_source("cnn", torch.float64)
        VectorizedEngine(factory, source, settings, 2).run(feed)
        curves.append([point.val_loss for _, result in sorted(feed.results.items()) for point in result.curve])
    assert curves[0] == pytest.approx(curves[1], abs=1e-9)
    assert len(curves[0]) == 9
