"""Law 1: every trial and site drops at its own rate."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dropsearch.dropout.mask_bits import SiteBits
from dropsearch.dropout.ops.attention import attend
from dropsearch.dropout.ops.element import SELU_SATURATION
from dropsearch.dropout.rates import Rate
from dropsearch.dropout.trial_control import TrialControl

MODULES = [nn.Dropout, nn.AlphaDropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout]


class Dropping(nn.Module):
    """A model of one site, whose output is what the site lets through."""

    def __init__(self, drop: nn.Module) -> None:
        super().__init__()
        self.drop = drop

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(x)


def dropped(model: nn.Module, rate: float, x: torch.Tensor, seed: int = 1, step: int = 0) -> torch.Tensor:
    control = TrialControl(model, {"drop": rate}, seed)
    with control.watching(), control.training_step(step):
        return model(x)


def input_for(module: nn.Module) -> torch.Tensor:
    sides = {nn.Dropout1d: 1, nn.Dropout2d: 2, nn.Dropout3d: 3, nn.FeatureAlphaDropout: 2}.get(type(module), 0)
    return torch.ones(64, 200, *(2 for _ in range(sides)))


def within_binomial_error(share: float, rate: float, count: int) -> bool:
    return abs(share - rate) <= 5 * math.sqrt(max(rate * (1 - rate), 1e-9) / count) + 2e-5


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize("rate", [0.0, 0.05, 0.3, 0.5, 0.9])
def test_the_share_of_dropped_units_is_the_rate_whatever_the_module_says(kind: type[nn.Module], rate: float) -> None:
    x = input_for(kind(0.77))
    out = dropped(Dropping(kind(0.77)), rate, x)
    reference = out.flatten(2)[:, :, 0] if out.dim() > 2 else out
    kept = reference.unique()
    share = 0.0 if len(kept) == 1 else float((reference == kept.min()).float().mean())
    assert within_binomial_error(share, rate, 64 * 200)


@given(rate=st.floats(0.0, 0.95), seed=st.integers(0, 2**31 - 1), step=st.integers(0, 2**40))
@settings(max_examples=40, deadline=None)
def test_the_mean_of_a_scaled_mask_is_one_and_its_variance_p_over_q(rate: float, seed: int, step: int) -> None:
    bits = torch.from_numpy(SiteBits().draw(seed, "site", step, 200_000))
    mask = Rate.of(rate).mask(bits, torch.float64)
    variance = rate / (1 - rate)
    assert abs(float(mask.mean()) - 1) <= 6 * math.sqrt(variance / 200_000) + 1e-3
    assert float(mask.var()) == pytest.approx(variance, rel=0.1, abs=2e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (3, 2, 4)])
def test_masks_of_any_type_and_shape(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """Also of rows with one rate, whose bits no code can read as an array."""
    bits, rate = torch.randint(-(1 << 15), 1 << 15, shape, dtype=torch.int16), Rate.of(0.2)
    wide = torch.promote_types(dtype, torch.float32)
    expected = torch.where(bits >= rate.threshold, torch.tensor(1.25, dtype=wide), torch.zeros((), dtype=wide))
    torch.testing.assert_close(rate.mask(bits, dtype), expected, rtol=0, atol=0)
    rows = torch.vmap(lambda each: rate.mask(each, dtype))(torch.stack([bits, bits]))
    torch.testing.assert_close(rows, torch.stack([expected, expected]), rtol=0, atol=0)


@pytest.mark.parametrize("kind", MODULES)
def test_a_site_in_eval_mode_is_the_identity(kind: type[nn.Module]) -> None:
    model = Dropping(kind(0.5)).eval()
    x = torch.randn_like(input_for(model.drop))
    assert torch.equal(dropped(model, 0.9, x), x)


def test_a_rate_of_zero_is_the_identity_bit_for_bit() -> None:
    x = torch.randn(50, 50)
    assert torch.equal(dropped(Dropping(nn.Dropout(0.5)), 0.0, x), x)


def test_a_rate_of_one_drops_everything() -> None:
    assert torch.count_nonzero(dropped(Dropping(nn.Dropout(0.5)), 1.0, torch.randn(300, 300))) == 0


def test_the_gradient_of_dropped_units_is_zero_and_that_of_kept_ones_is_the_scale() -> None:
    x = torch.randn(40, 40, requires_grad=True)
    out = dropped(Dropping(nn.Dropout(0.5)), 0.25, x)
    out.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad == 0, out == 0)
    assert torch.allclose(x.grad[out != 0], torch.tensor(1 / 0.75))


def test_masks_are_a_function_of_seed_site_and_step() -> None:
    model, x = Dropping(nn.Dropout(0.5)), torch.ones(30, 30)
    first = dropped(model, 0.5, x, seed=3, step=7)
    torch.rand(1000)  # the global generator has no part in it
    assert torch.equal(first, dropped(model, 0.5, x, seed=3, step=7))
    assert not torch.equal(first, dropped(model, 0.5, x, seed=4, step=7))
    assert not torch.equal(first, dropped(model, 0.5, x, seed=3, step=8))


def test_bits_of_different_seeds_sites_and_steps_are_uncorrelated() -> None:
    keys = [(seed, site, step) for seed in (0, 1, 2**31 - 1) for site in ("a", "b") for step in (0, 1, 2**33)]
    fields = np.stack([SiteBits().draw(seed, site, step, 20_000) for seed, site, step in keys])
    correlation = np.corrcoef(fields) - np.eye(len(keys))
    assert np.abs(correlation).max() < 5 / math.sqrt(20_000)


def test_whole_channels_are_dropped_by_channel_dropout() -> None:
    out = dropped(Dropping(nn.Dropout2d(0.1)), 0.5, torch.ones(8, 30, 4, 4))
    per_channel = out.flatten(2)
    assert torch.equal(per_channel.amin(-1), per_channel.amax(-1))


def test_alpha_dropout_keeps_mean_and_variance_of_selu_activations() -> None:
    torch.manual_seed(0)
    x = torch.randn(2000, 500, dtype=torch.float64)
    out = dropped(Dropping(nn.AlphaDropout(0.5)), 0.2, x)
    assert float(out.mean()) == pytest.approx(0.0, abs=5e-3)
    assert float(out.var()) == pytest.approx(1.0, abs=1e-2)
    assert float(SELU_SATURATION) < -1.75


def test_a_rate_outside_zero_to_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 1.5"):
        Rate.of(1.5)


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.3}, {"enable_gqa": True}])
def test_attention_without_dropping_equals_torch(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    heads = 2 if options.get("enable_gqa") else 4
    q, k, v = torch.randn(3, 4, 5, 8), torch.randn(3, heads, 5, 8), torch.randn(3, heads, 5, 8)
    bits = torch.zeros(3, 4, 5, 5, dtype=torch.int16)
    ours = attend(q, k, v, rate=Rate.of(0.0), bits=bits, **options)
    assert torch.allclose(ours, F.scaled_dot_product_attention(q, k, v, **options), atol=1e-6)


@pytest.mark.parametrize("boolean", [True, False])
def test_attention_masks_equal_torch(boolean: bool) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 5, 8)
    keep = torch.ones(5, 5, dtype=torch.bool).tril()
    mask = keep if boolean else torch.zeros(5, 5).masked_fill(~keep, -9.0)
    ours = attend(q, k, v, attn_mask=mask, rate=Rate.of(0.0), bits=torch.zeros(2, 2, 5, 5, dtype=torch.int16))
    assert torch.allclose(ours, F.scaled_dot_product_attention(q, k, v, attn_mask=mask), atol=1e-6)


def test_the_rates_of_rows_are_the_rates_of_trials() -> None:
    bits = torch.from_numpy(SiteBits().draw(0, "site", 0, 3 * 1000)).view(3, 1000)
    rates = [0.0, 0.4, 0.9]
    rows = Rate.stack(rates, dtype=torch.float64, device=torch.device("cpu"))
    together = torch.func.vmap(
        lambda b, t, s, v: Rate(v, t, s).mask(b, torch.float64)
    )(bits, rows.threshold, rows.scale, rows.value)  # fmt: skip
    each = torch.stack([Rate.of(rate).mask(row, torch.float64) for rate, row in zip(rates, bits, strict=True)])
    assert torch.equal(together, each)


def test_masks_of_two_rates_from_one_field_are_nested() -> None:
    model, x = Dropping(nn.Dropout(0.5)), torch.ones(100, 100)
    few, many = (dropped(model, rate, x, seed=5) for rate in (0.2, 0.6))
    assert bool(((few == 0) <= (many == 0)).all())
    assert int((many == 0).sum()) > int((few == 0).sum())


def test_in_low_precision_the_scale_of_kept_units_is_not_coarse() -> None:
    x = torch.arange(1, 2, 2**-7).repeat(200).bfloat16()
    out = dropped(Dropping(nn.Dropout(0.5)), 0.3, x)
    assert out.dtype == torch.bfloat16
    kept = out != 0
    assert torch.equal(out[kept], (x[kept].double() / 0.7).bfloat16())
    assert not torch.equal(out[kept], x[kept] * torch.tensor(1 / 0.7).bfloat16())
