from __future__ import annotations

import pytest
import torch
from torch import nn

from dropsearch.analysis.measures.passes import operations


def test_a_linear_layer_multiplies_and_adds_once_a_weight_and_example():
    assert operations(nn.Linear(30, 40, bias=False), [torch.zeros(5, 30)]) == 2 * 5 * 30 * 40


def test_a_convolution_does_so_at_each_place():
    assert operations(nn.Conv2d(3, 8, 3, padding=1), [torch.zeros(1, 3, 10, 10)]) == 2 * 3 * 3 * 3 * 8 * 100


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_counts_each_weight_at_each_step(cell: type[nn.RNNBase]):
    layer = cell(6, 8, batch_first=True)
    weights = sum(weight.numel() for weight in layer.parameters())
    assert operations(layer, [torch.zeros(2, 7, 6)]) >= 2 * 2 * 7 * weights
