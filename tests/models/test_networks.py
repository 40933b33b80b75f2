"""Properties of all built-in networks."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from dropsearch.models import CNN, MLP, RNN, Transformer
from dropsearch.models.classifier import NETS

LAYOUTS = ("image", "signal", "sequence")
EACH = list(itertools.product(NETS, LAYOUTS))
EVERY = list(itertools.product(NETS, LAYOUTS, ("none", "batch", "layer")))
SITES = {
    "mlp": ["input.dropout", "hidden1.dropout", "hidden2.dropout"],
    "cnn": ["block1.dropout", "block2.dropout", "head1.dropout"],
    "rnn": ["input.dropout", "between1.dropout", "output.dropout"],
    "transformer": [
        "embedding.dropout",
        *(
            f"layer{number}.{site}"
            for number in (1, 2)
            for site in (
                "attention",
                "attention_residual.dropout",
                "feedforward.dropout",
                "feedforward_residual.dropout",
            )
        ),
    ],
}


@pytest.mark.parametrize(("name", "layout", "norm"), EVERY)
def test_logits_shape(name, layout, norm, small_net, batch):
    net = small_net(name, layout, norm=norm, dropout=0.3)

    assert net(*batch(layout)).shape == (6, 5)


@pytest.mark.parametrize(("name", "layout", "norm"), EVERY)
def test_every_parameter_has_a_gradient(name, layout, norm, small_net, batch):
    net = small_net(name, layout, norm=norm).double()
    x, *lengths = batch(layout)
    F.cross_entropy(net(x.double(), *lengths), torch.arange(6) % 5).backward()

    for path, parameter in net.named_parameters():
        assert parameter.grad is not None, path
        # A bias in front of a BatchNorm is subtracted again, so its gradient is rightly zero.
        assert parameter.grad.abs().sum() > 0 or (norm == "batch" and path.endswith("bias")), path


@pytest.mark.parametrize("name", NETS)
def test_site_names_are_in_forward_order(name, small_net):
    assert list(small_net(name).rates) == SITES[name]


@pytest.mark.parametrize(("name", "layout", "norm"), EVERY)
def test_dropout_is_off_in_eval_mode(name, layout, norm, small_net, batch):
    with_dropout = small_net(name, layout, norm=norm, dropout=0.7).eval()
    without = small_net(name, layout, norm=norm, dropout=0.0).eval()

    torch.testing.assert_close(with_dropout(*batch(layout)), without(*batch(layout)), rtol=0, atol=0)


@pytest.mark.parametrize(("name", "layout"), EACH)
def test_each_site_changes_the_output(name, layout, small_net, batch):
    plain = small_net(name, layout)(*batch(layout))

    for site in SITES[name]:
        assert not torch.equal(small_net(name, layout, dropout={site: 0.9})(*batch(layout)), plain), site


@pytest.mark.parametrize("name", NETS)
def test_one_rate_for_all_sites(name, small_net):
    assert small_net(name, dropout=0.25).rates == dict.fromkeys(SITES[name], 0.25)


@pytest.mark.parametrize("name", NETS)
def test_rates_by_site_name(name, small_net):
    last = SITES[name][-1]
    net = small_net(name, dropout={last: 0.4})

    assert net.get_submodule(last).p == 0.4
    assert net.rates == {**dict.fromkeys(SITES[name], 0.0), last: 0.4}


@pytest.mark.parametrize("name", NETS)
def test_unknown_site_is_rejected(name):
    with pytest.raises(ValueError, match=f"no dropout site 'nowhere'.*{SITES[name][0]}"):
        NETS[name]((1, 8, 8), 3, dropout={"nowhere": 0.1})


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_rate_out_of_range_is_rejected(rate):
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\], got"):
        MLP((4, 4), 2, dropout=rate)


@pytest.mark.parametrize(("name", "layout", "norm"), EVERY)
def test_config_rebuilds_the_network(name, layout, norm, small_net, batch):
    net = small_net(name, layout, norm=norm, dropout=0.2)
    rebuilt = NETS[name](**{key: value for key, value in net.config.items() if key != "name"})
    rebuilt.load_state_dict(net.state_dict())

    assert rebuilt.config == net.config
    torch.testing.assert_close(rebuilt.eval()(*batch(layout)), net.eval()(*batch(layout)), rtol=0, atol=0)


def test_config_has_the_current_rates():
    net = MLP((4, 4), 2)
    net.get_submodule("hidden1.dropout").p = 0.35

    assert net.config["dropout"]["hidden1.dropout"] == 0.35


@pytest.mark.parametrize(
    ("name", "layout", "norm"), [case for case in EVERY if case[0] != "rnn" and case[1] != "signal"]
)
def test_vmap_equals_separate_networks(name, layout, norm, small_net, batch):
    nets = [small_net(name, layout, norm=norm, seed=seed).double() for seed in range(3)]
    x, *lengths = batch(layout)
    inputs = (x.double(), *lengths)
    parameters, buffers = stack_module_state(nets)
    skeleton = small_net(name, layout, norm=norm).double()

    with sdpa_kernel(SDPBackend.MATH):  # the CPU's fused attention has no batching rule and warns of it
        stacked = vmap(lambda p, b: functional_call(skeleton, (p, b), inputs))(parameters, buffers)

    for row, net in zip(stacked, nets, strict=True):
        torch.testing.assert_close(row, net(*inputs))
    for path, rows in buffers.items():
        for row, net in zip(rows, nets, strict=True):
            torch.testing.assert_close(row, net.get_buffer(path))


@pytest.mark.parametrize("name", ["mlp", "cnn", "transformer"])
def test_vmap_gradients_equal_separate_networks(name, small_net, batch):
    nets = [small_net(name, "sequence", norm="batch", seed=seed).double() for seed in range(3)]
    x, lengths = batch("sequence")
    target = torch.arange(6) % 5
    parameters, buffers = stack_module_state(nets)
    skeleton = small_net(name, "sequence", norm="batch").double()

    def loss(p, b):
        return F.cross_entropy(functional_call(skeleton, (p, b), (x.double(), lengths)), target)

    with sdpa_kernel(SDPBackend.MATH):
        together = vmap(grad(loss))(parameters, buffers)

    for row, net in enumerate(nets):
        F.cross_entropy(net(x.double(), lengths), target).backward()
        for path, parameter in net.named_parameters():
            torch.testing.assert_close(together[path][row], parameter.grad)


def _leaves_in_order(net: nn.Module, inputs) -> list[nn.Module]:
    """Return the modules that drop, normalize or have weights, in forward order."""
    seen: list[nn.Module] = []
    kinds = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm, nn.Linear, nn.RNNBase)
    kinds = (*kinds, nn.modules.conv._ConvNd)
    for module in net.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda module, *_: seen.append(module))
    net(*inputs)
    return seen


def _batchnorms_behind_a_dropout(net: nn.Module, inputs) -> int:
    leaves = _leaves_in_order(net, inputs)
    return sum(
        isinstance(before, nn.modules.dropout._DropoutNd) and isinstance(after, nn.modules.batchnorm._BatchNorm)
        for before, after in itertools.pairwise(leaves)
    )


@pytest.mark.parametrize(("name", "layout"), EACH)
def test_no_batchnorm_directly_after_dropout(name, layout, small_net, batch):
    net = small_net(name, layout, norm="batch", dropout=0.1)

    assert any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules())
    assert _batchnorms_behind_a_dropout(net, batch(layout)) == 0


@pytest.mark.parametrize("name", NETS)
def test_dropout_before_norm(name, small_net, batch):
    net = small_net(name, norm="batch", dropout=0.1, dropout_before_norm=True)

    assert _batchnorms_behind_a_dropout(net, batch()) >= 2


def test_order_of_layer_parts():
    net = MLP((1, 4, 4), 3, norm="batch")

    assert list(net.get_submodule("hidden1")._modules) == ["linear", "norm", "activation", "dropout"]


def test_block_drops_after_its_last_convolution():
    net = CNN((1, 8, 8), 3, norm="batch", convs_per_block=2)

    assert list(net.get_submodule("block1")._modules) == [
        *("conv1", "norm1", "activation1"),
        *("conv2", "norm2", "activation2", "dropout", "pool"),
    ]


def test_channel_dropout_drops_feature_maps(batch):
    net = CNN((2, 8, 8), 3, dropout=0.5, dropout_unit="channel", activation="gelu")
    kept = net.get_submodule("block1.dropout")(torch.ones(20, 16, 8, 8)).ne(0).flatten(2)

    assert torch.equal(kept.any(2), kept.all(2))
    assert 0.3 < kept.any(2).float().mean() < 0.7


@pytest.mark.parametrize(("layout", "shape"), [("signal", (2, 12)), ("sequence", (12, 2))])
def test_channel_dropout_of_signals_and_sequences(layout, shape):
    net = CNN(shape, 3, layout=layout, dropout=0.5, dropout_unit="channel")

    assert isinstance(net.get_submodule("block1.dropout"), nn.Dropout1d)


@given(
    sides=st.lists(st.integers(1, 9), min_size=1, max_size=2),
    blocks=st.integers(0, 5),
    pool=st.integers(1, 3),
)
def test_pooling_keeps_at_least_one_pixel(sides, blocks, pool):
    net = CNN((1, *sides), 2, channels=[2] * blocks, pool=pool, head=[])

    assert net(torch.randn(2, 1, *sides)).shape == (2, 2)


def test_mlp_without_hidden_layers_is_linear(batch):
    net = MLP((2, 8, 8), 5, hidden=[], input_dropout=False)

    assert net.rates == {}
    assert sum(parameter.numel() for parameter in net.parameters()) == 2 * 8 * 8 * 5 + 5


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (MLP, {"hidden": [0]}, r"hidden\[0\] must be at least 1, got 0"),
        (MLP, {"activation": "swish"}, 'activation must be one of relu, .*got "swish"'),
        (MLP, {"norm": "group"}, 'norm must be one of none, batch, layer, got "group"'),
        (MLP, {"classes": 0}, "classes must be at least 1, got 0"),
        (MLP, {"input_shape": (3,)}, "input_shape of layout signal must be 2 positive sizes"),
        (MLP, {"input_shape": (3, 0)}, "input_shape of layout signal must be 2 positive sizes"),
        (
            MLP,
            {"input_shape": (3, 4), "layout": "image"},
            "input_shape of layout image must be 3 positive sizes",
        ),
        (MLP, {"layout": "video"}, "layout must be one of image, signal, sequence, got 'video'"),
        (CNN, {"kernel_size": 4}, "kernel_size must be odd, got 4"),
        (CNN, {"pool": 0}, "pool must be at least 1, got 0"),
        (CNN, {"dropout_unit": "pixel"}, "dropout_unit must be one of element, channel"),
        (RNN, {"cell": "elman"}, "cell must be one of lstm, gru"),
        (RNN, {"mask": "none"}, "mask must be one of sequence, step"),
        (RNN, {"layers": 0}, "layers must be at least 1, got 0"),
        (Transformer, {"width": 10, "heads": 4}, "width must be a multiple of heads, got 10 and 4"),
    ],
)
def test_out_of_range_options_are_rejected(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**{"input_shape": (1, 8, 8), "classes": 3, **options})
