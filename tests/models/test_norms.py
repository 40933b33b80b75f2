"""BatchNorm over steps, with statistics that exclude padding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dropsearch.models.layers import StepBatchNorm


def _steps() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    real = torch.arange(7) < torch.tensor([7, 1, 4])[:, None]
    return torch.randn(3, 7, 5, dtype=torch.float64) * 3 + 1, real


def _pair(momentum: float | None = 0.1) -> tuple[StepBatchNorm, nn.BatchNorm1d]:
    ours, judge = (
        StepBatchNorm(5, momentum=momentum).double(),
        nn.BatchNorm1d(5, momentum=momentum).double(),
    )
    for norm in (ours, judge):
        nn.init.uniform_(norm.weight, generator=torch.Generator().manual_seed(2))
        nn.init.uniform_(norm.bias, generator=torch.Generator().manual_seed(3))
    return ours, judge


@pytest.mark.parametrize("momentum", [0.1, None])
def test_equals_batchnorm_on_real_steps(momentum):
    ours, judge = _pair(momentum)
    steps, real = _steps()

    for batch in (steps, steps * 2 + 1):
        torch.testing.assert_close(ours(batch, real)[real], judge(batch[real]))
    torch.testing.assert_close(ours.state_dict(), judge.state_dict())
    torch.testing.assert_close(ours.eval()(steps, real)[real], judge.eval()(steps[real]))


def test_gradient_equals_batchnorm_on_real_steps():
    ours, judge = _pair()
    steps, real = _steps()
    one, other = steps.clone().requires_grad_(), steps.clone().requires_grad_()

    ours(one, real)[real].square().sum().backward()
    judge(other[real]).square().sum().backward()

    torch.testing.assert_close(one.grad, other.grad)
    torch.testing.assert_close(ours.weight.grad, judge.weight.grad)


def test_equals_batchnorm_without_padding():
    ours, judge = _pair()
    steps, _ = _steps()

    torch.testing.assert_close(ours(steps), judge(steps.flatten(0, 1)).view_as(steps))
    torch.testing.assert_close(ours.state_dict(), judge.state_dict())


def test_padding_does_not_change_statistics():
    ours, _ = _pair()
    other, _ = _pair()
    steps, real = _steps()
    ours(steps, real)
    other(steps.masked_fill(~real.unsqueeze(-1), 100.0), real)

    torch.testing.assert_close(ours.state_dict(), other.state_dict(), rtol=0, atol=0)
