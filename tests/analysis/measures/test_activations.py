from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dropsearch.analysis.measures.activations import MOST, hearing, hidden_layers
from dropsearch.analysis.measures.protocol import NotMeasuredError
from dropsearch.models import CNN, MLP, RNN, Transformer
from tests.analysis.measures.models import numbers, trained


def shapes(module: nn.Module, *inputs: Tensor) -> list[tuple[int, ...]]:
    found, _ = hidden_layers(trained(module, *inputs), inputs)
    return [tuple(layer.values.shape) for layer in found]


def test_the_units_of_an_mlp_are_those_behind_its_activations():
    assert shapes(MLP((1, 4, 4), 3, hidden=[8, 6]), numbers(5, 1, 4, 4)) == [(5, 8), (5, 6)]


def test_the_units_behind_a_convolution_are_channels_and_every_place_is_an_observation():
    net = CNN((1, 4, 4), 3, channels=[2, 5], head=[7])
    assert shapes(net, numbers(3, 1, 4, 4)) == [(3 * 16, 2), (3 * 4, 5), (3, 7)]


def test_the_observations_of_a_convolution_are_its_maps():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 4, 3))
    x = numbers(3, 1, 4, 4)
    found, _ = hidden_layers(trained(net, x), (x,))
    maps = net[:2](x)
    assert torch.equal(found[0].values[:, 1], maps[:, 1].flatten())


def test_the_states_of_a_recurrent_network_are_units_and_its_real_steps_observations():
    net = RNN((4, 3), 2, layout="sequence", hidden_size=5, layers=2)
    lengths = torch.tensor([4, 1, 2])
    assert shapes(net, numbers(3, 4, 3), lengths) == [(7, 5), (7, 5)]


def test_the_units_of_a_transformer_are_those_within_its_feedforward_branches():
    net = Transformer((6, 4), 3, layout="sequence", width=8, heads=2, feedforward=12, layers=2)
    assert shapes(net, numbers(2, 6, 4), torch.tensor([6, 3])) == [(9, 12), (9, 12)]


def test_an_activation_that_is_met_twice_is_two_layers():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.act = nn.Linear(4, 6), nn.Linear(6, 3), nn.ReLU(inplace=True)
            self.out = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.act(self.two(self.act(self.one(x)))))

    assert shapes(Twice(), numbers(5, 4)) == [(5, 6), (5, 3)]


def test_what_comes_out_of_the_network_is_not_hidden():
    assert shapes(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3), nn.Sigmoid()), numbers(5, 4)) == [(5, 6)]


@pytest.mark.parametrize("module", [nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 3), nn.Softplus())])
def test_a_network_without_hidden_layers_says_so(module: nn.Module):
    with pytest.raises(NotMeasuredError, match=r"it needs hidden layers with activation modules such as nn\.ReLU"):
        shapes(module, numbers(5, 4))


def test_of_very_many_observations_some_are_drawn():
    net = nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 2100, 3))
    assert shapes(net, numbers(5, 1, 2102)) == [(MOST, 2)]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
def test_the_last_states_of_a_recurrent_module_change_with_its_outputs(
    cell: type[nn.RNNBase], batch_first: bool, bidirectional: bool
):
    rnn = cell(3, 4, num_layers=2, batch_first=batch_first, bidirectional=bidirectional)
    x = numbers(5, 2, 3)
    kept = rnn(x)[1]
    with hearing(rnn, lambda number, activations, axis: activations.clone()):
        states = rnn(x)[1]
    for was, now in zip(*((s if isinstance(s, tuple) else (s,)) for s in (kept, states)), strict=True):
        assert torch.equal(was, now)
    with hearing(rnn, lambda number, activations, axis: torch.zeros_like(activations)):
        states = rnn(x)[1]
    hidden = states[0] if isinstance(states, tuple) else states
    assert not hidden[-2 if bidirectional else -1 :].any()


def test_no_hook_is_left_behind():
    net = MLP((1, 4, 4), 3, hidden=[8])
    x = numbers(5, 1, 4, 4)
    hidden_layers(trained(net, x), (x,))
    assert not any(part._forward_hooks for part in net.modules())
