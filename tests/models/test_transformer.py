"""The Transformer encoder."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from dropsearch.models import Transformer
from dropsearch.models.transformer import Attention


@pytest.mark.parametrize("training", [True, False])
def test_attention_equals_pytorch(training):
    torch.manual_seed(0)
    ours, judge = Attention(12, 3).double(), nn.MultiheadAttention(12, 3, batch_first=True).double()
    judge.in_proj_weight.data.copy_(ours.qkv.weight.data)
    judge.in_proj_bias.data.copy_(ours.qkv.bias.data)
    judge.out_proj.load_state_dict(ours.projection.state_dict())
    tokens = torch.randn(4, 6, 12, dtype=torch.float64)
    real = torch.arange(6) < torch.tensor([6, 1, 3, 5])[:, None]

    expected = judge.train(training)(tokens, tokens, tokens, key_padding_mask=~real, need_weights=False)[0]

    torch.testing.assert_close(ours.train(training)(tokens, real), expected)


def test_layer_equals_pytorch_pre_norm_layer():
    torch.manual_seed(0)
    net = Transformer((6, 3), 2, layout="sequence", width=12, heads=3, feedforward=20).double()
    ours = net.get_submodule("layer1")
    judge = nn.TransformerEncoderLayer(12, 3, 20, 0.0, "gelu", batch_first=True, norm_first=True).double()
    names = {
        "self_attn.in_proj_": "attention.qkv.",
        "self_attn.out_proj.": "attention.projection.",
        "linear1.": "feedforward.expand.",
        "linear2.": "feedforward.contract.",
        "norm1.": "attention_norm.",
        "norm2.": "feedforward_norm.",
    }
    for theirs, mine in names.items():
        for part in ("weight", "bias"):
            judge.get_parameter(theirs + part).data.copy_(ours.get_parameter(mine + part).data)
    tokens = torch.randn(4, 6, 12, dtype=torch.float64)

    torch.testing.assert_close(ours(tokens, None), judge(tokens))


class _AttentionCalls(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.rates: list[float] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is nn.functional.scaled_dot_product_attention:
            self.rates.append((kwargs or {})["dropout_p"])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("training", "expected"), [(True, [0.3, 0.3]), (False, [0.0, 0.0])])
def test_attention_passes_its_rate(training, expected, small_net, batch):
    net = small_net("transformer", dropout=0.3).train(training)
    with _AttentionCalls() as calls:
        net(*batch())

    assert calls.rates == expected


def test_too_many_steps_are_rejected():
    net = Transformer((6, 3), 2, layout="sequence")

    with pytest.raises(ValueError, match="at most the 6 steps of input_shape, got 7"):
        net(torch.zeros(1, 7, 3))


def test_positions_encode_the_order():
    torch.manual_seed(0)
    net = Transformer((6, 3), 2, layout="sequence").eval()
    x = torch.randn(1, 6, 3)

    assert not torch.allclose(net(x), net(x.flip(1)), atol=1e-6)
